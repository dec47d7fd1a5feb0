//! Sockets that a service manager opened for us, in the manner of `sd_listen_fds(3)`: descriptors from 3 on, their number in
//! `LISTEN_FDS`, and in `LISTEN_PID` the process that they are for.

use std::ffi::{OsStr, OsString};
use std::os::fd::RawFd;

use crate::os::program::was_inherited;

/// Who the sockets are for.
pub(super) const WHOSE: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
/// Also the number of the process' kernel object, which nobody but the manager can know in advance.
const BY_OBJECT: &str = "LISTEN_PIDFDID";
const ALL: [&str; 4] = [WHOSE, COUNT, "LISTEN_FDNAMES", BY_OBJECT];
const FIRST: RawFd = 3;

/// Whether anything is said of sockets at all.
pub(super) fn are_announced() -> bool {
    ALL.iter().any(|name| std::env::var_os(name).is_some())
}

/// The sockets that are for this process (`own`), to be handed on. Where there are none, the variables are taken out: whoever
/// believed them would take other descriptors for sockets.
pub(super) fn handed_on(variables: &mut Vec<(OsString, OsString)>, own: u32) -> Vec<RawFd> {
    handed_on_if(variables, own, was_inherited)
}

fn handed_on_if(variables: &mut Vec<(OsString, OsString)>, own: u32, inherited: impl Fn(RawFd) -> bool) -> Vec<RawFd> {
    let number = |name: &str| {
        let (_, value) = variables.iter().find(|(other, _)| other == name)?;
        value.to_str()?.parse::<u32>().ok()
    };
    let count = number(COUNT).filter(|_| number(WHOSE) == Some(own)).and_then(|count| RawFd::try_from(count).ok());
    let end = count.and_then(|count| FIRST.checked_add(count)).unwrap_or(FIRST);
    let ours = end > FIRST && (FIRST..end).all(inherited);
    let taken_out = |name: &OsStr| if ours { name == BY_OBJECT } else { ALL.iter().any(|other| name == *other) };
    variables.retain(|(name, _)| !taken_out(name));
    if ours { (FIRST..end).collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_are_for_us_and_there_are_handed_on() {
        let left = |pairs: &[(&str, &str)]| {
            let mut variables: Vec<(OsString, OsString)> =
                pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
            variables.push(("HOME".into(), "/".into()));
            let sockets = handed_on_if(&mut variables, 7, |fd| fd < 5);
            (sockets, variables.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect::<Vec<_>>())
        };
        let two = [(WHOSE, "7"), (COUNT, "2"), ("LISTEN_FDNAMES", "a:b"), (BY_OBJECT, "9")];
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(left(&two), (vec![3, 4], names(&[WHOSE, COUNT, "LISTEN_FDNAMES", "HOME"])));
        for (whose, count) in [
            ("8", "2"),
            ("", "2"),
            ("7", "0"),
            ("7", "3"),
            ("7", "-1"),
            ("7", "2147483647"),
            ("7", "4294967295"),
            ("7", "two"),
        ] {
            let others = [(WHOSE, whose), (COUNT, count), ("LISTEN_FDNAMES", "a:b"), (BY_OBJECT, "9")];
            assert_eq!(left(&others), (vec![], names(&["HOME"])), "{whose} {count}");
        }
        assert_eq!(left(&[(COUNT, "2")]), (vec![], names(&["HOME"])));
    }
}
