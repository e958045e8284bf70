//! What a wait for several things at once needs of a socket.

#![forbid(unsafe_code)]

use std::io;
use std::panic::Location;
use std::sync::Arc;

use super::table::Kind;
use crate::observe::WaitKind;
use crate::scheduler::io::Source;

/// A socket whose readiness [`select`](mod@crate::select) can wait for: every socket of [`net`](crate::net), and what refers to one.
pub trait Polled {
    #[doc(hidden)]
    fn parts(&self) -> PolledParts<'_>;
}

/// Nobody else's business.
#[doc(hidden)]
#[derive(Debug)]
pub struct PolledParts<'a> {
    pub(crate) source: &'a Source,
    /// What a wait for something to read is called.
    pub(crate) kind: WaitKind,
}

impl<'a> PolledParts<'a> {
    pub(super) fn new(source: &'a Source, kind: Kind) -> PolledParts<'a> {
        let accepts = matches!(kind, Kind::TcpListener | Kind::UnixListener);
        PolledParts { source, kind: if accepts { WaitKind::Accept } else { WaitKind::Read } }
    }
}

/// A listener, for [`select::accept`](crate::select::accept).
pub trait Accepts: Polled {
    /// What its `accept` gives.
    type Connection;

    #[doc(hidden)]
    fn accept_now(&self, site: &'static Location<'static>) -> io::Result<Self::Connection>;
}

macro_rules! by_reference {
    ($($pointer:ty),*) => {
        $(
            impl<P: Polled + ?Sized> Polled for $pointer {
                fn parts(&self) -> PolledParts<'_> {
                    (**self).parts()
                }
            }

            impl<P: Accepts + ?Sized> Accepts for $pointer {
                type Connection = P::Connection;

                fn accept_now(&self, site: &'static Location<'static>) -> io::Result<P::Connection> {
                    (**self).accept_now(site)
                }
            }
        )*
    };
}

by_reference!(&P, Arc<P>);
