//! Makes the allocator give freed memory back to the system at once instead of a second or more
//! later: a large push frees hundreds of megabytes in one go.
//!
//! mimalloc takes its options from the environment, and reads them before `main` runs. So the
//! program starts itself once more, in the same process, with the option set.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// How long freed memory is kept, in milliseconds (mimalloc's documentation, "Environment Options").
const OPTION: &str = "MIMALLOC_PURGE_DELAY";

/// What the names of the system's loaders begin with, `ld.so` and `ld-linux-x86-64.so.2`.
const LOADER: &str = "ld";

/// Sets the option, unless the operator did. Returns when it is set, or can't be.
pub fn return_memory_promptly() {
    if std::env::var_os(OPTION).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else { return };
    if is_loader(&program) {
        // `ld.so holdall`: the loader itself would be started, without the word `holdall`.
        return;
    }
    // Comes back only when it fails; the server then merely holds more memory for a while.
    let _failed = Command::new(program).arg0(name).args(arguments).env(OPTION, "0").exec();
}

fn is_loader(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(LOADER) && name.contains(".so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_is_known_by_its_name() {
        let paths = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1", "/usr/bin/holdall"];
        assert_eq!(paths.map(|path| is_loader(Path::new(path))), [true, true, false]);
    }
}
