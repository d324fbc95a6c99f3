//! Who may read and write the files that decide what this node lets pass. The files are read elsewhere; `serve`
//! and `check` tell what is found here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The bits by which others than a file's owner and group may read and write it.
const READ: u32 = 0o004;
const WRITE: u32 = 0o002;

/// What an operator should mend about a file, named as the configuration names it; nothing if it cannot be
/// looked at, for then it cannot be read either.
pub(crate) fn warning(name: &str, path: impl AsRef<Path>, holds_secrets: bool) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let may = match (holds_secrets && mode & READ != 0, mode & WRITE != 0) {
        (false, false) => return None,
        (true, false) => "may read its secrets",
        (false, true) => "may write it, and so decide who is let in",
        (true, true) => "may read its secrets, and write it",
    };
    let good = if holds_secrets { "600 or 640" } else { "644" };
    Some(format!("{name}: every user of this machine {may} (mode {mode:03o}); make it {good}"))
}
