//! The macro over the arms.

#![forbid(unsafe_code)]

/// Waits for the first of several things and runs the code beside it.
///
/// ```
/// use coro::sync::mpmc;
/// use std::time::Duration;
///
/// coro::run(|| {
///     let (numbers, got) = mpmc::channel();
///     let (words, full) = mpmc::sync_channel::<&str>(0);
///     let mut task = coro::spawn(move || {
///         numbers.send(1).unwrap();
///         numbers
///     });
///     let mut seen = 0;
///     let ended = loop {
///         coro::select! {
///             recv(got) -> number => seen += number.unwrap_or(0),
///             send(words, "hello") -> _ => unreachable!("nobody receives"),
///             join(task) -> result => break result.is_ok(),
///             after(Duration::from_secs(5)) => panic!("it takes too long"),
///         }
///     };
///     drop(full);
///     assert!(ended && seen <= 1);
/// });
/// ```
///
/// | arm | goes on | gives |
/// |---|---|---|
/// | `recv(receiver) -> m` | with a message, or when there will be none | `Result<T, RecvError>` |
/// | `send(sender, value) -> r` | when the message was taken or queued, or nobody will receive | `Result<(), SendError<T>>` |
/// | `oneshot(receiver) -> m` | with the message, or when there will be none | `Result<T, RecvError>` |
/// | `after(duration)` | when the time has passed, counted from the beginning of this choice | |
/// | `at(instant)` | at that time | |
/// | `join(handle) -> r` | when the task has ended | as [`JoinHandle::join`](crate::JoinHandle::join) |
/// | `readable(socket) -> r` | when a read would not wait | `io::Result<()>` |
/// | `writable(socket) -> r` | when a write would not wait | `io::Result<()>` |
/// | `accept(listener) -> r` | with a connection | as the listener's `accept` |
/// | `future(f) -> v` | when the future is ready | its output |
/// | `default` | if nothing else can at once | |
///
/// The channels are those of [`sync::mpsc`](crate::sync::mpsc) and [`sync::mpmc`](crate::sync::mpmc), receivers and senders are
/// borrowed, handles and receivers of [`sync::oneshot`](crate::sync::oneshot) by `&mut`. A message to be sent is evaluated in any case, and dropped with the choice if another arm was
/// first. A future is dropped as well, unless it is given as `&mut future`. `-> pattern` may be left out, and must be
/// irrefutable; after a block the comma may be. The code runs when the choice is over: it may use what the arms borrowed, and
/// `break`, `continue`, `return` and `?` are those of the code around.
///
/// What is promised (one arm alone, fairness, nothing left, cancellation) is told at the module [`select`](mod@crate::select),
/// which is also there for choices whose number of arms is not known before.
#[macro_export]
macro_rules! select {
    ($($arms:tt)+) => {
        $crate::__select!(@read [] [] $($arms)+)
    };
}

/// `@read`: from the text to a list of `{op (args) [pattern] [code]}`. `@bind`: a variable for each arm. `@wait`, `@give`: the
/// choice and the result of its arm. `@run`: the code of that arm, after all arms have gone.
#[doc(hidden)]
#[macro_export]
macro_rules! __select {
    (@read [$($read:tt)*] [$($default:tt)*]) => {{
        let outcome = $crate::__select!(@bind [$($read)*] [] [$($default)*]);
        $crate::__select!(@run outcome [$($read)*] [$($default)*])
    }};
    (@read [$($read:tt)*] [] default => $code:block , $($rest:tt)*) => {
        $crate::__select!(@read [$($read)*] [[$code]] $($rest)*)
    };
    (@read [$($read:tt)*] [] default => $code:block $($rest:tt)*) => {
        $crate::__select!(@read [$($read)*] [[$code]] $($rest)*)
    };
    (@read [$($read:tt)*] [] default => $code:expr , $($rest:tt)*) => {
        $crate::__select!(@read [$($read)*] [[$code]] $($rest)*)
    };
    (@read [$($read:tt)*] [] default => $code:expr) => {
        $crate::__select!(@read [$($read)*] [[$code]])
    };
    (@read [$($read:tt)*] $default:tt $op:ident ($($args:tt)*) => $($rest:tt)+) => {
        $crate::__select!(@read [$($read)*] $default $op ($($args)*) -> _ => $($rest)+)
    };
    (@read [$($read:tt)*] $default:tt $op:ident ($($args:tt)*) -> $pat:pat => $code:block , $($rest:tt)*) => {
        $crate::__select!(@read [$($read)* {$op ($($args)*) [$pat] [$code]}] $default $($rest)*)
    };
    (@read [$($read:tt)*] $default:tt $op:ident ($($args:tt)*) -> $pat:pat => $code:block $($rest:tt)*) => {
        $crate::__select!(@read [$($read)* {$op ($($args)*) [$pat] [$code]}] $default $($rest)*)
    };
    (@read [$($read:tt)*] $default:tt $op:ident ($($args:tt)*) -> $pat:pat => $code:expr , $($rest:tt)*) => {
        $crate::__select!(@read [$($read)* {$op ($($args)*) [$pat] [$code]}] $default $($rest)*)
    };
    (@read [$($read:tt)*] $default:tt $op:ident ($($args:tt)*) -> $pat:pat => $code:expr) => {
        $crate::__select!(@read [$($read)* {$op ($($args)*) [$pat] [$code]}] $default)
    };

    (@bind [{recv ($rx:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match &$rx {
            receiver => {
                let mut arm = $crate::select::recv(receiver);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{send ($tx:expr, $value:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match (&$tx, $value) {
            (sender, value) => {
                let mut arm = $crate::select::send(sender, value);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{oneshot ($rx:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match &mut $rx {
            receiver => {
                let mut arm = $crate::select::oneshot(receiver);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{join ($handle:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match &mut $handle {
            handle => {
                let mut arm = $crate::select::join(handle);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{after ($time:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {{
        let mut arm = $crate::select::after($time);
        $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
    }};
    (@bind [{at ($time:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {{
        let mut arm = $crate::select::at($time);
        $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
    }};
    (@bind [{readable ($socket:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match &$socket {
            socket => {
                let mut arm = $crate::select::readable(socket);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{writable ($socket:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match &$socket {
            socket => {
                let mut arm = $crate::select::writable(socket);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{accept ($listener:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match &$listener {
            listener => {
                let mut arm = $crate::select::accept(listener);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{future ($future:expr $(,)?) $pat:tt $code:tt} $($more:tt)*] [$($arms:ident)*] $default:tt) => {
        match ::std::pin::pin!(::std::future::IntoFuture::into_future($future)) {
            future => {
                let mut arm = $crate::select::future(future);
                $crate::__select!(@bind [$($more)*] [$($arms)* arm] $default)
            }
        }
    };
    (@bind [{$op:ident $args:tt $pat:tt $code:tt} $($more:tt)*] $arms:tt $default:tt) => {
        ::std::compile_error!(::std::concat!(
            "`", ::std::stringify!($op), ::std::stringify!($args), "` is no arm: recv(receiver), send(sender, value), oneshot(receiver), \
             after(duration), at(instant), join(handle), readable(socket), writable(socket), accept(listener), \
             future(f) and default are"
        ))
    };
    (@bind [] [$($arms:ident)*] $default:tt) => {{
        let chosen = {
            let arms: &mut [&mut dyn $crate::select::Arm] = &mut [$(&mut $arms),*];
            $crate::__select!(@wait arms $default)
        };
        $crate::__select!(@give chosen (0) [$($arms)*] $default)
    }};

    (@wait $all:ident []) => {
        $crate::select::wait($all)
    };
    (@wait $all:ident [$default:tt]) => {
        $crate::select::try_now($all).unwrap_or(usize::MAX)
    };

    (@give $chosen:ident ($n:expr) [$arm:ident $($more:ident)*] $default:tt) => {
        if $chosen == $n {
            $crate::select::Either::This($arm.take())
        } else {
            $crate::select::Either::Other($crate::__select!(@give $chosen ($n + 1) [$($more)*] $default))
        }
    };
    (@give $chosen:ident ($n:expr) [] []) => {
        $crate::select::Nobody::of($chosen)
    };
    (@give $chosen:ident ($n:expr) [] [$default:tt]) => {
        ()
    };

    (@run $outcome:ident [{$op:ident $args:tt [$pat:pat] [$code:expr]} $($more:tt)*] $default:tt) => {
        match $outcome {
            $crate::select::Either::This($pat) => $code,
            $crate::select::Either::Other(other) => $crate::__select!(@run other [$($more)*] $default),
        }
    };
    (@run $outcome:ident [] []) => {
        $outcome.run()
    };
    (@run $outcome:ident [] [[$code:expr]]) => {{
        let () = $outcome;
        $code
    }};
}

/// The result of one arm of several.
#[doc(hidden)]
#[derive(Debug)]
pub enum Either<A, B> {
    This(A),
    Other(B),
}

/// What would be the result of an arm behind the last one.
#[doc(hidden)]
#[derive(Debug)]
pub struct Nobody(());

impl Nobody {
    /// There is none: a choice without `default` ends with one of its arms.
    pub fn of(chosen: usize) -> Nobody {
        unreachable!("arm {chosen} of a choice that has fewer")
    }

    /// Nor is there anything to run for it.
    pub fn run(self) -> ! {
        unreachable!("nobody's arm")
    }
}
