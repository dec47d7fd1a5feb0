//! The inits that can be put under test, and how each is asked for the same things.

use std::ffi::OsString;
use std::path::Path;

/// What a case wants from the init.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Signals to the child alone.
    pub single_child: bool,
    /// Signals to translate.
    pub rewrite: Vec<(i32, i32)>,
    /// A code to translate to 0.
    pub remap: Option<u8>,
    /// Time between SIGTERM and SIGKILL for what the child left.
    pub grace: Option<&'static str>,
    /// The user to become.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<&'static str>,
    /// File creation mask.
    pub umask: Option<&'static str>,
    /// The signal for the parent's death.
    pub pdeathsig: Option<&'static str>,
    /// No new privileges.
    pub no_new_privs: bool,
}

/// One init.
pub struct Init {
    /// Its name in `INIT_UNDER_TEST` and in the table.
    pub name: &'static str,
    /// Its program.
    pub program: &'static str,
    /// The same as a program that needs no library, if there is one.
    pub static_program: Option<&'static str>,
    arguments: fn(&Options, &mut Vec<OsString>) -> Result<(), &'static str>,
}

/// All of them, ours first.
pub const INITS: &[Init] = &[
    Init {
        name: "oscr",
        program: env!("CARGO_BIN_EXE_oscr-entry"),
        static_program: Some(env!("CARGO_BIN_EXE_oscr-entry")),
        arguments: oscr,
    },
    Init { name: "tini", program: "/usr/bin/tini", static_program: Some("/usr/bin/tini-static"), arguments: tini },
    Init { name: "dumb-init", program: "/usr/bin/dumb-init", static_program: None, arguments: dumb_init },
    Init {
        name: "catatonit",
        program: "/usr/bin/catatonit",
        static_program: Some("/usr/bin/catatonit"),
        arguments: catatonit,
    },
];

impl Init {
    /// Whether it is installed.
    pub fn is_here(&self) -> bool {
        Path::new(self.program).exists()
    }

    /// Its options, up to where the command follows. Panics if it has no such option, which means: not kept.
    pub fn options(&self, wanted: &Options) -> Vec<OsString> {
        let mut line = Vec::new();
        if let Err(missing) = (self.arguments)(wanted, &mut line) {
            panic!("{} has no option for {missing}", self.name);
        }
        line
    }
}

fn oscr(wanted: &Options, line: &mut Vec<OsString>) -> Result<(), &'static str> {
    line.push("exec".into());
    let mut option = |name: &str, value: &str| line.extend([name.into(), value.into()]);
    for (from, to) in &wanted.rewrite {
        option("--rewrite", &format!("{from}:{to}"));
    }
    if let Some(code) = wanted.remap {
        option("--remap", &format!("{code}:0"));
    }
    let with_value = [
        ("--grace", wanted.grace),
        ("--user", wanted.user.as_deref()),
        ("--workdir", wanted.workdir),
        ("--umask", wanted.umask),
        ("--pdeathsig", wanted.pdeathsig),
    ];
    for (name, value) in with_value {
        if let Some(value) = value {
            option(name, value);
        }
    }
    if wanted.single_child {
        line.push("--single-child".into());
    }
    if wanted.no_new_privs {
        line.push("--no-new-privs".into());
    }
    line.push("--".into());
    Ok(())
}

/// What none of the others has.
fn beyond_an_init(wanted: &Options) -> Result<(), &'static str> {
    if wanted.grace.is_some() {
        return Err("a grace");
    }
    if wanted.user.is_some() || wanted.workdir.is_some() || wanted.umask.is_some() || wanted.no_new_privs {
        return Err("the state of the child");
    }
    Ok(())
}

fn tini(wanted: &Options, line: &mut Vec<OsString>) -> Result<(), &'static str> {
    beyond_an_init(wanted)?;
    if !wanted.rewrite.is_empty() {
        return Err("rewriting signals");
    }
    // To be a subreaper where it is not PID 1.
    line.push("-s".into());
    if !wanted.single_child {
        line.push("-g".into());
    }
    if let Some(code) = wanted.remap {
        line.extend(["-e".into(), code.to_string().into()]);
    }
    if let Some(signal) = wanted.pdeathsig {
        line.extend(["-p".into(), format!("SIG{signal}").into()]);
    }
    line.push("--".into());
    Ok(())
}

fn dumb_init(wanted: &Options, line: &mut Vec<OsString>) -> Result<(), &'static str> {
    beyond_an_init(wanted)?;
    if wanted.remap.is_some() {
        return Err("rewriting exit codes");
    }
    if wanted.pdeathsig.is_some() {
        return Err("the death of a parent");
    }
    for (from, to) in &wanted.rewrite {
        line.extend(["--rewrite".into(), format!("{from}:{to}").into()]);
    }
    if wanted.single_child {
        line.push("--single-child".into());
    }
    line.push("--".into());
    Ok(())
}

fn catatonit(wanted: &Options, line: &mut Vec<OsString>) -> Result<(), &'static str> {
    beyond_an_init(wanted)?;
    if !wanted.rewrite.is_empty() {
        return Err("rewriting signals");
    }
    if wanted.remap.is_some() {
        return Err("rewriting exit codes");
    }
    if wanted.pdeathsig.is_some() {
        return Err("the death of a parent");
    }
    if !wanted.single_child {
        line.push("-g".into());
    }
    line.push("--".into());
    Ok(())
}
