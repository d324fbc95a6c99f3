//! Files that an operator has named: reading them without being held up by what is no file, and who else may
//! read and write them.
//!
//! The binary uses it for the files of its configuration, `tls` for the certificate. It decides nothing: what is
//! found here is told by `serve` and `check`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// The bits by which others than a file's owner and group may read and write it.
const READ: u32 = 0o004;
const WRITE: u32 = 0o002;

/// What is in a file, as far as it matters who else may read and write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Secrets that log somebody in.
    Secrets,
    /// The key of a certificate of this server's, towards clients or towards Redis.
    ServerKey,
    /// Nothing secret, but it decides who is let in.
    Rules,
}

/// Reads a whole file. It never waits for anybody: what is no regular file (a pipe, a device) is not opened,
/// or not read if it takes the file's place in that moment.
///
/// # Errors
/// When it cannot be read, is no regular file, or has more than `most` bytes.
pub fn read(path: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    let regular = |is_file: bool| match is_file {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    };
    regular(std::fs::metadata(path)?.is_file())?;
    // A pipe without a writer opens at once, too.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    regular(file.metadata()?.is_file())?;
    read_at_most(file, most)
}

fn read_at_most(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may grow while it is read: one byte more tells.
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("it has more than {most} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// What an operator should mend about a file, named as the configuration names it; nothing if it cannot be
/// looked at, for then it cannot be read either.
#[must_use]
pub fn warning(name: &str, path: impl AsRef<Path>, holds: Holds) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let (reads, writes) = (mode & READ != 0, mode & WRITE != 0);
    let may = match holds {
        Holds::Secrets if reads && writes => "may read its secrets, and write it",
        Holds::Secrets if reads => "may read its secrets",
        Holds::ServerKey if reads => "may read it, and so speak in this server's name",
        Holds::ServerKey if writes => {
            "may write it, and so keep its certificate from being renewed"
        }
        Holds::Secrets | Holds::Rules if writes => "may write it, and so decide who is let in",
        _ => return None,
    };
    let good = if holds == Holds::Rules { "644" } else { "600 or 640" };
    Some(format!("{name}: every user of this machine {may} (mode {mode:03o}); make it {good}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_a_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().to_string(), "it has more than 4 bytes");
        std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
        assert_eq!(read(folder.path().join("link"), 5).unwrap(), b"12345");
        for no_file in [folder.path(), Path::new("/dev/zero")] {
            assert_eq!(read(no_file, 5).unwrap_err().to_string(), "it is no regular file");
        }
        assert_eq!(read(folder.path().join("b"), 5).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_others_may_do_is_told_by_what_it_means() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = |mode, holds| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), mode).unwrap();
            warning("x", file.path(), holds).unwrap_or_default()
        };
        for mode in [0o600, 0o640, 0o660] {
            for holds in [Holds::Secrets, Holds::ServerKey, Holds::Rules] {
                assert_eq!(said(mode, holds), "");
            }
        }
        assert_eq!(said(0o644, Holds::Rules), "");
        assert!(
            said(0o646, Holds::Rules).ends_with("decide who is let in (mode 646); make it 644")
        );
        assert!(
            said(0o604, Holds::Secrets).contains("may read its secrets (mode 604); make it 600")
        );
        assert!(said(0o606, Holds::Secrets).contains("may read its secrets, and write it"));
        assert!(said(0o602, Holds::Secrets).contains("may write it, and so decide"));
        assert!(said(0o604, Holds::ServerKey).contains("speak in this server's name (mode 604)"));
        assert!(said(0o602, Holds::ServerKey).contains("may write it"));
        assert_eq!(warning("x", "/nowhere", Holds::Secrets), None);
    }
}
