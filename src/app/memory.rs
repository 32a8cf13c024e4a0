//! Makes the allocator give freed memory back to the system at once instead of a second or more
//! later: a large push frees hundreds of megabytes in one go.
//!
//! mimalloc takes its options from the environment, and reads them before `main` runs. So the
//! program starts itself once more, in the same process, with the option set.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// How long freed memory is kept, in milliseconds (mimalloc's documentation, "Environment Options").
const OPTION: &str = "MIMALLOC_PURGE_DELAY";

/// Sets the option, unless the operator did. Returns when it is set, or can't be.
pub fn return_memory_promptly() {
    if std::env::var_os(OPTION).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else { return };
    // Comes back only when it fails; the server then merely holds more memory for a while.
    let _failed = Command::new(program).arg0(name).args(arguments).env(OPTION, "0").exec();
}
