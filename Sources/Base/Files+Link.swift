// A second name for a file, for files that are never written to again.

internal import Glibc

extension Files {
  /// Gives the file at `path` a second name, or copies it, when `links` is false or the file system has no links.
  public static func linkOrCopy(_ path: String, to other: String, links: Bool) throws(FileError) {
    if links, unsafe link(path, other) == 0 { return }
    try replace(other, with: try read(path), durable: false)
  }
}
