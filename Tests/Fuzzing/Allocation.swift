// What an input makes a decoder allocate, counted by the address sanitizer's own hooks. Without that sanitizer nothing
// is counted.

import Glibc
import Synchronization

/// Bytes allocated since `begin`, by any thread.
enum Allocation {
  private static let total = Atomic<Int>(0)
  private static let isOn = Atomic<Bool>(false)

  private typealias MallocHook = @convention(c) (UnsafeRawPointer?, Int) -> Void
  private typealias FreeHook = @convention(c) (UnsafeRawPointer?) -> Void
  private typealias Install = @convention(c) (MallocHook, FreeHook) -> Int32

  /// Whether allocations are counted in this process.
  static let isCounted: Bool = {
    total.store(0, ordering: .relaxed)
    isOn.store(false, ordering: .relaxed)
    guard let symbol = dlsym(nil, "__sanitizer_install_malloc_and_free_hooks") else { return false }
    let install = unsafeBitCast(symbol, to: Install.self)
    return install(
      { _, size in
        if Allocation.isOn.load(ordering: .relaxed) { _ = Allocation.total.add(size, ordering: .relaxed) }
      }, { _ in }) != 0
  }()

  /// The bytes that `body` allocated in all, freed again or not.
  static func count(_ body: () -> Void) -> Int {
    total.store(0, ordering: .relaxed)
    isOn.store(true, ordering: .relaxed)
    body()
    isOn.store(false, ordering: .relaxed)
    return total.load(ordering: .relaxed)
  }
}
