//! What belongs to one operating system, with std's paths: [`unix::net`], `linux::net`, [`fd`].
//!
//! Only names: sockets live in [`net`](crate::net), descriptors in std. Must not know how anything waits.

#![forbid(unsafe_code)]

#[cfg(any(target_os = "linux", target_os = "android"))]
mod socket_options;

/// As [`std::os::fd`], which it is.
pub mod fd {
    pub use std::os::fd::*;
}

/// As [`std::os::unix`], as far as it is about sockets.
pub mod unix {
    pub use crate::net::unix as net;

    /// As [`std::os::unix::fs`], for the types of [`fs`](crate::fs); a link is made on the blocking pool.
    pub mod fs {
        pub use crate::fs::paths::symlink;
        pub use std::os::unix::fs::{
            DirBuilderExt, DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
        };
    }

    /// As [`std::os::unix::process`]; what `CommandExt` has are methods of [`Command`](crate::process::Command).
    pub mod process {
        pub use std::os::unix::process::{ExitStatusExt, parent_id};
    }

    /// As [`std::os::unix::io`], which it is.
    pub mod io {
        pub use std::os::unix::io::*;
    }

    /// As [`std::os::unix::prelude`], as far as it is about descriptors.
    pub mod prelude {
        pub use std::os::unix::prelude::*;
    }
}

/// As `std::os::linux`, as far as it is about sockets.
#[cfg(target_os = "linux")]
pub mod linux {
    /// Extensions of sockets; those of std that are unstable are here too.
    pub mod net {
        pub use crate::os::socket_options::{TcpStreamExt, UnixSocketExt};
        pub use std::os::linux::net::SocketAddrExt;
    }
}

/// As `std::os::android`, as far as it is about sockets.
#[cfg(target_os = "android")]
pub mod android {
    /// Extensions of sockets; those of std that are unstable are here too.
    pub mod net {
        pub use crate::os::socket_options::{TcpStreamExt, UnixSocketExt};
        pub use std::os::android::net::SocketAddrExt;
    }
}

/// Where std itself keeps the extensions of [`linux`](crate::os::linux).
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub mod net {
    pub mod linux_ext {
        pub mod addr {
            pub use std::os::linux::net::SocketAddrExt;
        }
        pub mod socket {
            pub use crate::os::socket_options::UnixSocketExt;
        }
        pub mod tcp {
            pub use crate::os::socket_options::TcpStreamExt;
        }
    }
}
