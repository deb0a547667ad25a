// Signals as mail. A handler must do next to nothing, so it writes the number into a pipe, which a thread reads.

public import Base
internal import CKernels
internal import Glibc

/// The signals that ask a process to stop.
public enum Signals {
  /// Keeps SIGINT, SIGTERM and SIGHUP from ending this process and delivers them as mail instead; call it once.
  ///
  /// SIGPIPE is ignored from here on, so that a peer that goes away is an error of the write.
  public static func mailbox() -> Mailbox<Int32> {
    let mailbox = Mailbox<Int32>(bound: 16)
    _ = signal(SIGPIPE, SIG_IGN)
    let numbers = [SIGINT, SIGTERM, SIGHUP]
    let descriptor = unsafe guira_forward_signals(numbers, Int32(numbers.count))
    precondition(descriptor >= 0, "cannot receive signals: errno \(errno)")
    _ = OwnedThread(named: "signals") {
      var number: UInt8 = 0
      while true {
        let count = unsafe read(descriptor, &number, 1)
        if count == 1 { _ = mailbox.offer(Int32(number)) } else if errno != EINTR { return }
      }
    }
    return mailbox
  }
}
