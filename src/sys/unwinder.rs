//! The system's unwinder.

/// Where the functions begin whose last act is to leave their own frame for one further out: those that raise what unwinds, and the one
/// that goes on after a frame was cleaned up.
#[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
pub(crate) fn leaving() -> [usize; 4] {
    // SAFETY: declared to have their addresses; nobody calls them here.
    unsafe extern "C" {
        fn _Unwind_RaiseException();
        fn _Unwind_Resume();
        fn _Unwind_Resume_or_Rethrow();
        fn _Unwind_ForcedUnwind();
    }
    [
        _Unwind_RaiseException as *const () as usize,
        _Unwind_Resume as *const () as usize,
        _Unwind_Resume_or_Rethrow as *const () as usize,
        _Unwind_ForcedUnwind as *const () as usize,
    ]
}

/// Not known for other unwinders than GCC's.
#[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
pub(crate) fn leaving() -> [usize; 0] {
    []
}
