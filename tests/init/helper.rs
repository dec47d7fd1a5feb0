//! What this program does when a case starts it anew: as the child of an init, or as what starts the init.
//!
//! It is static, so it also runs where there is nothing else.

use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::{getegid, geteuid, getgroups, getpid, getppid, getsid};
use oscr::os::signal::{self, SignalSet};

use crate::filter::Filter;
use crate::stress;
use crate::world::words;

/// The first argument that makes this program a helper.
pub const FLAG: &str = "--as-a-helper";

/// The command line of a helper.
pub fn line<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(arguments: I) -> Vec<OsString> {
    let mut line = vec![this_program(), FLAG.into()];
    line.extend(words(arguments));
    line
}

/// Cargo and every helper start it by its whole path; `/proc/self/exe` is not everywhere.
fn this_program() -> OsString {
    let name = std::env::args_os().next().unwrap();
    std::path::absolute(name).unwrap().into_os_string()
}

/// Does what the arguments say.
#[expect(clippy::zombie_processes, reason = "it is the init under test that must wait for them")]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let texts: Vec<&str> = arguments.iter().filter_map(|text| text.to_str()).collect();
    match texts[..] {
        // Takes every signal and says so; SIGTERM ends it.
        ["signals", name] => signals(name, &mut io::stdout()),
        ["signals", name, file] => {
            let file = OpenOptions::new().create(true).append(true).open(file);
            signals(name, &mut file.unwrap())
        }
        // The same twice, in one process group.
        ["pair"] => {
            // Blocked in both from here on, so that neither misses one.
            signal::set_mask(SignalSet::ALL).unwrap();
            let other = line(["signals", "other"]);
            Command::new(&other[0]).args(&other[1..]).spawn().unwrap();
            signals("main", &mut io::stdout())
        }
        // Executes a command with a signal blocked and waiting.
        ["pending", number, ..] => {
            let number = number.parse().unwrap();
            signal::set_mask([number].into_iter().collect()).unwrap();
            signal::kill(getpid().as_raw(), number).unwrap();
            execute(&arguments[2..])
        }
        // Executes a command that may not make a system call (with a certain first argument).
        ["deny", call, argument, error, ..] => {
            let filter = Filter::new(call.parse().unwrap(), argument.parse().ok(), error.parse().unwrap());
            filter.install().unwrap();
            execute(&arguments[4..])
        }
        // Says who and where it is.
        ["state"] => {
            let groups: Vec<u32> = getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
            println!("uid={} gid={} groups={groups:?}", geteuid(), getegid());
            println!("leads its session: {}", getsid(None) == Ok(getpid()));
            ExitCode::from(7)
        }
        // Says where its parent is, and where it is itself.
        ["directories"] => {
            let parent = std::fs::read_link(format!("/proc/{}/cwd", getppid())).unwrap();
            println!("parent in {}, child in {}", parent.display(), std::env::current_dir().unwrap().display());
            ExitCode::SUCCESS
        }
        // Leaves a process behind.
        ["leave"] => {
            let other = line(["signals", "left"]);
            let mut left = Command::new(&other[0]).args(&other[1..]).stdout(Stdio::piped()).spawn().unwrap();
            let mut ready = [0; 10];
            io::Read::read_exact(left.stdout.as_mut().unwrap(), &mut ready).unwrap();
            ExitCode::from(7)
        }
        ["stress", flag] => stress::main_child(flag.as_ref()),
        _ => panic!("no such helper: {arguments:?}"),
    }
}

fn execute(line: &[OsString]) -> ExitCode {
    let error = Command::new(&line[0]).args(&line[1..]).exec();
    panic!("{line:?}: {error}");
}

fn signals(name: &str, out: &mut dyn Write) -> ExitCode {
    signal::set_mask(SignalSet::ALL).unwrap();
    writeln!(out, "{name} ready").unwrap();
    loop {
        if let Some(number) = signal::wait(None).unwrap() {
            // The terminal may be gone, which is what this one is told of.
            let _ = writeln!(out, "{name} got {number}");
            if number == libc::SIGTERM {
                return ExitCode::SUCCESS;
            }
        }
    }
}
