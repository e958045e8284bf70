//! The tests' view of std: the modules that coro mirrors are coro's, whole, and the rest is std's. A name that coro
//! lacks is a compile error.

pub use ::std::*;

pub use coro::{io, sync, thread_local, time};

pub mod net {
    pub use coro::net::*;
    pub mod test {
        pub use crate::helpers::{compare_ignore_zoneid, next_test_ip4, next_test_ip6, sa4, sa6, tsa};
    }
}

pub mod thread {
    pub use crate::helpers::current_os_id;
    pub use coro::thread::*;
}

pub mod os {
    pub use ::std::os::*;
    pub mod unix {
        pub use ::std::os::unix::*;
        pub use coro::os::unix::net;
    }
    pub mod linux {
        pub use ::std::os::linux::*;
        pub use coro::os::linux::net;
    }
    pub mod net {
        pub mod linux_ext {
            pub mod tcp {
                pub use coro::os::linux::net::TcpStreamExt;
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
    /// Runs `f` as a task of a runtime with this many workers. The runtime is left alone afterwards: a test may leave
    /// tasks behind, as it may leave threads behind.
    pub fn in_task<T: Send + 'static>(workers: usize, f: impl FnOnce() -> T + Send + 'static) -> T {
        let runtime = coro::Runtime::builder().workers(workers).build().expect("a runtime");
        let out = runtime.block_on(f);
        std::mem::forget(runtime);
        out
    }

    /// Where every task is, for a test that hangs.
    pub fn where_all() -> String {
        coro::where_all().iter().map(|task| format!("{task}\n")).collect()
    }
}
