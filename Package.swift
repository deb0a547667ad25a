// swift-tools-version: 6.2
// Guira: an online-training parameter-server cluster for recommender systems.
//
// Imports go downward only (docs/ARCHITECTURE.md, "The house"): a target lists exactly the targets it imports, and
// `make build` refuses an import that is not listed here.

import PackageDescription

let testSettings: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableExperimentalFeature("Lifetimes"),
  .treatAllWarnings(as: .error),
]
let settings = testSettings + [.strictMemorySafety()]

/// A Swift module of ours: `Sources/<name>`, with the settings all of them share.
func module(_ name: String, uses: [Target.Dependency], exclude: [String] = []) -> Target {
  .target(name: name, dependencies: uses, exclude: exclude, swiftSettings: settings)
}

/// The tests of a module: `Tests/<name>Tests`.
func tests(_ name: String, uses: [Target.Dependency] = [], exclude: [String] = []) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: [.byName(name: name)] + uses, exclude: exclude, swiftSettings: testSettings)
}

let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
func nio(_ name: String) -> Target.Dependency { .product(name: name, package: "swift-nio") }

let package = Package(
  name: "guira",
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    .package(url: "https://github.com/apple/swift-http-types", exact: "1.8.0"),
    .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
    .package(url: "https://github.com/apple/swift-protobuf", exact: "1.39.0"),
    .package(url: "https://github.com/hummingbird-project/hummingbird", exact: "2.28.1"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
    .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
  ],
  targets: [
    // C: system libraries, one importer each (and its tests), and our own small kernels.
    .systemLibrary(name: "CXXHash"),
    .systemLibrary(name: "CZeroMQ"),
    .systemLibrary(name: "CSnappy"),
    .systemLibrary(name: "COpenBLAS"),
    .systemLibrary(name: "CHiredis"),
    .systemLibrary(name: "CRdKafka"),
    .systemLibrary(name: "CRocksDB"),
    .target(name: "CSimdJSON", linkerSettings: [.linkedLibrary("simdjson")]),
    .target(name: "CKernels"),

    // 0
    module("Base", uses: ["CKernels", "CXXHash"]),
    tests("Base"),

    // 1
    module("Embeddings", uses: ["Base", "CKernels"]),
    tests("Embeddings", uses: ["Base", "CKernels"], exclude: ["Golden"]),
    module("Layers", uses: ["Base", "CKernels", "COpenBLAS"]),
    tests("Layers", uses: ["Base"]),
    module("Journal", uses: ["Base", "CKernels"]),
    tests("Journal", uses: ["Base", "Support"]),
    module("Wire", uses: ["Base", "CKernels", "CZeroMQ"]),
    tests("Wire", uses: ["Base", "CKernels", "CZeroMQ", "Support"]),

    module(
      "Hosting",
      uses: [
        "Base", hummingbird, .product(name: "HummingbirdCore", package: "hummingbird"), nio("NIOCore"), nio("NIOPosix"),
        logging, .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
      ]),
    module("Redis", uses: ["Base", "CHiredis"]),
    // A real redis-server for the tests that need one.
    .target(
      name: "RedisTesting", dependencies: ["Base", "Redis", "Support"], path: "Tests/RedisTesting",
      swiftSettings: testSettings),

    // 2
    module(
      "Streams",
      uses: ["Base", "CSimdJSON", "Journal", .product(name: "SwiftProtobuf", package: "swift-protobuf")],
      exclude: ["Protobuf/events.proto"]),
    tests("Streams", uses: ["Base", "Journal", .product(name: "SwiftProtobuf", package: "swift-protobuf")]),
    module("RedisStreams", uses: ["Base", "Redis", "Streams"]),
    tests("RedisStreams", uses: ["Base", "Redis", "RedisTesting", "Streams"]),
    module("KafkaStreams", uses: ["Base", "CRdKafka", "Journal", "Streams"]),
    // librdkafka's own mock of a Kafka cluster, for tests: there is no broker to install.
    .target(
      name: "KafkaTesting", dependencies: ["Base", "CRdKafka"], path: "Tests/KafkaTesting", swiftSettings: testSettings),
    tests("KafkaStreams", uses: ["Base", "KafkaTesting", "Streams"]),
    module("Joining", uses: ["Base", "CRocksDB", "Journal", "Streams"]),
    tests(
      "Joining",
      uses: [
        "Base", "Journal", "KafkaStreams", "KafkaTesting", "Redis", "RedisStreams", "RedisTesting", "Streams",
      ]),
    module("Sharding", uses: ["Base", "Embeddings", "Journal", "Layers", "Wire"]),
    tests("Sharding", uses: ["Base", "Embeddings", "Journal", "Layers", "Support", "Wire"]),
    module("Syncing", uses: ["Base", "CSnappy", "Embeddings", "Sharding", "Wire"]),
    tests("Syncing", uses: ["Base", "Embeddings", "Layers", "Sharding", "Support", "Wire"]),

    // 3
    module("Training", uses: ["Base", "Layers", "Sharding", "Streams", "Wire"]),
    tests("Training", uses: ["Base", "Embeddings", "Layers", "Sharding", "Streams", "Wire"]),
    module(
      "Serving",
      uses: [
        "Base", "CKernels", "Embeddings", "Hosting", "Layers", "Streams", "Wire", hummingbird, nio("NIOCore"), logging,
        httpTypes,
      ]),
    tests(
      "Serving",
      uses: [
        "Base", "Hosting", "Layers", "Streams", "Support", hummingbird, nio("NIOCore"), logging, httpTypes,
        .product(name: "HummingbirdTesting", package: "hummingbird"),
      ]),

    module(
      "Ingesting", uses: ["Base", "Hosting", "Streams", "Wire", hummingbird, nio("NIOCore"), logging, httpTypes]),
    tests("Ingesting", uses: ["Base", "Streams", "Wire", logging]),

    module(
      "UserModeling",
      uses: [
        "Base", "CKernels", "Hosting", "Journal", "Layers", "Redis", "Serving", "Streams", "Wire", hummingbird,
        nio("NIOCore"), logging,
      ]),
    tests(
      "UserModeling",
      uses: ["Base", "Journal", "Layers", "Redis", "RedisTesting", "Serving", "Streams", "Wire", logging]),

    // 4
    module(
      "Cluster",
      uses: [
        "Base", "CKernels", "Embeddings", "Ingesting", "Joining", "KafkaStreams", "Layers", "Redis",
        "RedisStreams", "Serving", "Sharding", "Streams", "Syncing", "Training", "UserModeling", "Wire", logging,
        .product(name: "Yams", package: "Yams"),
      ]),
    tests(
      "Cluster",
      uses: ["Base", "Embeddings", "Layers", "Serving", "Streams", "Syncing", "UserModeling", "Wire", logging]),

    module("Simulation", uses: ["Base", "Embeddings", "Layers", "Sharding", "Syncing", "Wire"]),
    tests("Simulation", uses: ["Base", "Wire"]),

    // 5
    module(
      "Experiments",
      uses: [
        "Base", "Cluster", "Embeddings", "Joining", "Layers", "Serving", "Sharding", "Streams", "Syncing", "Training",
        "UserModeling", "Wire",
      ]),
    tests("Experiments", uses: ["Base", "Cluster", "Layers", "Streams"]),
    module(
      "Benchmarking",
      uses: [
        "Base", "CKernels", "Cluster", "Embeddings", "Ingesting", "Joining", "Layers", "Serving", "Sharding", "Streams",
        "Syncing", "Training", "UserModeling", "Wire", logging,
      ]),

    // 6
    .executableTarget(
      name: "guira",
      dependencies: [
        "Base", "Benchmarking", "CKernels", "Cluster", "Embeddings", "Experiments", "Serving", "Sharding", "Simulation",
        "Streams",
        "Syncing",
        .product(name: "ArgumentParser", package: "swift-argument-parser"), logging,
      ],
      swiftSettings: settings),
    .testTarget(
      name: "EndToEndTests",
      dependencies: [
        "Base", "Cluster", "Layers", "RedisTesting", "Serving", "Sharding", "Streams", "Support", "Syncing", "Wire",
        "guira",
      ],
      swiftSettings: testSettings),
    .testTarget(
      name: "ChaosTests",
      dependencies: [
        "Base", "Cluster", "Embeddings", "Journal", "Layers", "Serving", "Sharding", "Streams", "Support", "Syncing",
        "Wire", "guira",
      ],
      swiftSettings: testSettings),
    // What tests of several modules share.
    .target(name: "Support", dependencies: ["Base"], path: "Tests/Support", swiftSettings: testSettings),
    // Mutated inputs for every decoder, with the address sanitizer: `make fuzz`.
    .executableTarget(
      name: "Fuzzing",
      dependencies: [
        "Base", "Embeddings", "Joining", "Journal", "Layers", "Serving", "Sharding", "Streams", "Syncing",
        "UserModeling", "Wire",
      ], path: "Tests/Fuzzing", swiftSettings: testSettings),
    .testTarget(name: "FuzzingTests", dependencies: ["Base", "Fuzzing"], swiftSettings: testSettings),
    .testTarget(name: "TidyTests", swiftSettings: testSettings),
  ],
  cLanguageStandard: .c17,
  cxxLanguageStandard: .cxx17
)
