//! How many files, and so connections, the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What the process needs besides clients' connections: links to the broker, listeners, the admin
/// listener's connections, the runtime's own.
const RESERVE: u64 = 128;

/// Raises the limit of open files as far as the system lets this process go, and returns it. The
/// soft limit is commonly 1,024 for the sake of programs that use `select`, which we never do.
pub(crate) fn raise() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit = raised;
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// How many connections fit into a limit of open files: the limit less the reserve, or half of it
/// where the limit is so low that the reserve would eat most of it. At most ten million.
pub(crate) fn connections(limit: u64) -> usize {
    const MOST: u64 = 10_000_000;
    let fit = limit.saturating_sub(RESERVE).max(limit / 2).clamp(1, MOST);
    usize::try_from(fit).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_files_are_kept_back() {
        for (limit, fit) in [(0, 1), (100, 50), (256, 128), (1024, 896), (u64::MAX, 10_000_000)] {
            assert_eq!(connections(limit), fit, "{limit}");
        }
    }

    #[test]
    fn the_limit_is_raised_to_what_is_allowed() {
        let raised = raise();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current.unwrap_or(u64::MAX), raised);
    }
}
