//! Raw stderr: never fails, never blocks the caller for longer than the descriptor does, never takes std's lock.
//!
//! First cut: one `write(2)` per line, errors swallowed. A ring and a writer thread come with a later change.

use std::time::SystemTime;

/// Writes `text` as it is.
pub(crate) fn write(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // SAFETY: the bytes live across the call.
        let n = unsafe { libc::write(2, rest.as_ptr().cast(), rest.len()) };
        if n <= 0 {
            return;
        }
        rest = &rest[n as usize..];
    }
}

/// Writes `ID:\tTIME TEXT` and a newline, in Shrapnel's form.
pub(crate) fn print(id: u64, text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    write(&format!("{id}:\t{} {text}{end}", time_text(SystemTime::now())));
}

#[cfg(not(miri))]
unsafe extern "C" {
    // POSIX has it everywhere; the `libc` crate does not, on FreeBSD.
    fn ctime_r(time: *const libc::time_t, buffer: *mut libc::c_char) -> *mut libc::c_char;
}

/// The local time as `ctime` writes it, without its newline: 24 characters.
pub(crate) fn time_text(at: SystemTime) -> String {
    let secs = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs()) as libc::time_t;
    let mut buffer = [0u8; 32];
    #[cfg(not(miri))]
    // SAFETY: `ctime_r` writes at most 26 bytes.
    unsafe {
        ctime_r(&secs, buffer.as_mut_ptr().cast());
    }
    let _ = secs;
    let end = buffer.iter().position(|b| *b == b'\n' || *b == 0).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}
