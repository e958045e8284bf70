//! The system's unwinder.

/// Where the functions begin whose last act is to leave their own frame for one further out: those that raise what unwinds, and the one
/// that goes on after a frame was cleaned up. Known for GCC's unwinder only.
///
/// Asked of the loader, because a declaration of such a function would be one for the compiler as well, whose landing pads call it: as a function of
/// the plain C ABI it is one that nothing unwinds through.
pub(crate) fn leaving() -> Vec<usize> {
    if cfg!(not(all(target_os = "linux", target_env = "gnu", not(miri)))) {
        return Vec::new();
    }
    let names = [c"_Unwind_RaiseException", c"_Unwind_Resume", c"_Unwind_Resume_or_Rethrow", c"_Unwind_ForcedUnwind"];
    // Of its own library, if it is there: others may have put functions of the same name before it, as the address sanitizer does.
    // SAFETY: names with their ends; nothing is loaded that is not there, and the addresses are only compared.
    unsafe {
        let library = libc::dlopen(c"libgcc_s.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        let from = if library.is_null() { libc::RTLD_DEFAULT } else { library };
        let found = names.iter().map(|name| libc::dlsym(from, name.as_ptr()).addr()).filter(|at| *at != 0).collect();
        if !library.is_null() {
            libc::dlclose(library);
        }
        found
    }
}
