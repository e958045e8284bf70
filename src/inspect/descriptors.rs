//! The descriptors of the process against its limit.

#![forbid(unsafe_code)]

use std::fmt;

use crate::net::table;
use crate::sys;

/// See [`descriptors`]. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct DescriptorUse {
    /// How many are open; at least so many, if not `exact`.
    pub open: usize,
    /// The kernel has counted them. Otherwise they are the sockets of [`coro::net`](crate::net), and there are others.
    pub exact: bool,
    /// How many the process may have open; `None`: without limit.
    pub limit: Option<u64>,
    /// How many of them are sockets of [`coro::net`](crate::net), clones counted.
    pub sockets: usize,
}

impl fmt::Display for DescriptorUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.exact { "" } else { "at least " };
        write!(f, "{least}{} descriptors open", self.open)?;
        match self.limit {
            Some(limit) => write!(f, " of {limit} allowed")?,
            None => write!(f, ", without limit")?,
        }
        write!(f, ", {} of them sockets of coro", self.sockets)?;
        if !self.exact {
            f.write_str(" (the others cannot be counted here)")?;
        }
        Ok(())
    }
}

/// How many descriptors the process has open, against its limit.
///
/// Needs no free descriptor on Linux 6.2 and later; on earlier ones the first call keeps one for the later ones, and without
/// it the table of sockets answers, and says so.
///
/// # Examples
/// ```
/// let _socket = coro::net::UdpSocket::bind("127.0.0.1:0").unwrap();
/// let found = coro::inspect::descriptors();
/// assert!(found.sockets >= 1 && found.open >= found.sockets);
/// println!("{found}"); // 9 descriptors open of 1024 allowed, 1 of them sockets of coro
/// ```
pub fn descriptors() -> DescriptorUse {
    let sockets = table::all().count();
    let open = sys::descriptors::open();
    // A limit that cannot be asked for is none that is known.
    let limit = sys::descriptors::limit().unwrap_or(None);
    DescriptorUse { open: open.unwrap_or(sockets), exact: open.is_some(), limit, sockets }
}
