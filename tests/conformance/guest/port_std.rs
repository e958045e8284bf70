//! The tests' view of std, for the baseline: std itself, and the private helpers.

pub use ::std::*;

pub mod net {
    pub use ::std::net::*;
    pub mod test {
        pub use crate::helpers::{compare_ignore_zoneid, next_test_ip4, next_test_ip6, sa4, sa6, tsa};
    }
}

pub mod thread {
    pub use crate::helpers::current_os_id;
    pub use ::std::thread::*;
}

pub mod os {
    pub use ::std::os::*;
    pub mod net {
        pub mod linux_ext {
            pub mod tcp {
                pub use ::std::os::linux::net::TcpStreamExt;
            }
        }
    }
}

pub mod test_helpers {
    pub use crate::helpers::tmpdir;
}

pub mod common {
    pub use crate::helpers::test_rng;
}

pub mod rand {
    pub use crate::helpers::Rng;
}

/// How the runner starts a test here.
pub mod modes {
    pub fn in_task<T: Send + 'static>(_: usize, _: impl FnOnce() -> T + Send + 'static) -> T {
        unreachable!("std has no tasks")
    }

    pub fn where_all() -> String {
        String::new()
    }
}
