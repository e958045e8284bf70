//! Addresses of unix sockets: std's type, the kernel's form, and paths.

#![forbid(unsafe_code)]

use std::io;
use std::os::unix::net::SocketAddr;
use std::path::Path;

use socket2::SockAddr;

use crate::sys::unixsock::MAX_PATH;

/// The address of a path.
///
/// # Errors
/// `InvalidInput` as std's, with the limit if the path is too long.
pub(super) fn from_path(path: &Path) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(path).map_err(|e| {
        let n = path.as_os_str().len();
        if n <= MAX_PATH {
            return e;
        }
        let text = format!(
            "{}: {n} bytes are too long for a socket's path, which may have {MAX_PATH}; use a shorter directory",
            path.display()
        );
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })
}

/// The form for system calls.
pub(super) fn to_kernel(addr: &SocketAddr) -> io::Result<SockAddr> {
    if let Some(path) = addr.as_pathname() {
        return SockAddr::unix(path);
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = abstract_name(addr) {
        use std::os::unix::ffi::OsStrExt;
        let with_nul = [&[0], name].concat();
        return SockAddr::unix(std::ffi::OsStr::from_bytes(&with_nul));
    }
    SockAddr::unix("")
}

#[cfg(target_os = "android")]
use std::os::android::net::SocketAddrExt;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;

#[cfg(any(target_os = "linux", target_os = "android"))]
fn abstract_name(addr: &SocketAddr) -> Option<&[u8]> {
    addr.as_abstract_name()
}

/// What a system call gave. An address that is none (some systems give none for a socket without a name) is unnamed.
///
/// # Errors
/// For a path that fills the kernel's structure to the last byte, which std's type cannot hold.
pub(super) fn from_kernel(addr: &SockAddr) -> io::Result<SocketAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = addr.as_abstract_namespace() {
        return SocketAddr::from_abstract_name(name);
    }
    SocketAddr::from_pathname(addr.as_pathname().unwrap_or(Path::new("")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for path in ["/a", "relative/b", ""] {
            let addr = from_kernel(&to_kernel(&from_path(Path::new(path)).unwrap()).unwrap()).unwrap();
            assert_eq!(addr.as_pathname(), (!path.is_empty()).then_some(Path::new(path)));
            assert_eq!(addr.is_unnamed(), path.is_empty());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn abstract_names_too_with_zeros_in_them() {
        for name in [&b"x"[..], b"a\0b", b"trailing\0", &[0xff; 107]] {
            let addr = SocketAddr::from_abstract_name(name).unwrap();
            assert_eq!(from_kernel(&to_kernel(&addr).unwrap()).unwrap().as_abstract_name(), Some(name));
        }
    }

    #[test]
    fn the_longest_path_fits_and_one_more_is_refused_with_the_limit() {
        let longest = "x".repeat(MAX_PATH);
        assert_eq!(from_path(Path::new(&longest)).unwrap().as_pathname(), Some(Path::new(&longest)));
        let e = from_path(Path::new(&"x".repeat(MAX_PATH + 1))).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
        assert!(e.to_string().contains(&MAX_PATH.to_string()), "{e}");
        assert_eq!(from_path(Path::new("a\0b")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
