//! The postures in which a runner is tried: what `docker run` is given for each.

use clap::ValueEnum;

/// How a runner's container is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Posture {
    /// As the README's `docker run` has it
    Default,
    /// As compose.yml with compose.hardened.yml has it
    Hardened,
    /// Not root: `--user 1001`
    User,
}

/// The service of `compose.yml` with `compose.hardened.yml`, as arguments of `docker run`. A test holds them to these files.
const HARDENED: [&str; 18] = [
    "--cap-drop=ALL",
    "--cap-add=CHOWN",
    "--cap-add=DAC_OVERRIDE",
    "--cap-add=FOWNER",
    "--cap-add=KILL",
    "--cap-add=SETGID",
    "--cap-add=SETUID",
    "--security-opt=no-new-privileges:true",
    "--pids-limit=4096",
    "--read-only",
    "--tmpfs=/work:exec,mode=0755,size=8g",
    "--tmpfs=/home/runner:exec,mode=0755,size=2g",
    "--tmpfs=/tmp:exec,mode=1777,size=2g",
    "--tmpfs=/var/tmp:exec,mode=1777,size=2g",
    "--tmpfs=/runner:exec,mode=0755,size=1g",
    "--tmpfs=/run:mode=0755,size=16m",
    "--tmpfs=/run/lock:mode=1777,size=16m",
    "--volume=/var/lib/oscr",
];

impl Posture {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Default, Self::Hardened, Self::User];

    /// As it is called in the table.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Hardened => "hardened",
            Self::User => "user",
        }
    }

    /// What `docker run` is given for it.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::Hardened => &HARDENED,
            Self::User => &["--user=1001"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HARDENED;

    /// The items of a list of a Compose file, without comments, `${NAME:-value}` being the value.
    fn list<'a>(file: &'a str, under: &str) -> Vec<String> {
        let mut lines = file.lines().skip_while(|line| line.trim() != under).skip(1);
        let item =
            |line: &'a str| line.trim_start().strip_prefix("- ").map(|item| item.split('#').next().unwrap_or(item));
        let mut found = Vec::new();
        for line in lines.by_ref().filter(|line| !line.trim_start().starts_with('#')) {
            match item(line) {
                Some(item) => found.push(set(item)),
                None => break,
            }
        }
        found
    }

    /// A text with the defaults of its variables in their place.
    fn set(text: &str) -> String {
        let Some((before, rest)) = text.split_once("${") else { return text.trim().to_owned() };
        let (variable, after) = rest.split_once('}').expect("a variable ends");
        let (_, default) = variable.split_once(":-").expect("a default");
        set(&format!("{before}{default}{after}"))
    }

    /// The value of a line `name: value`.
    fn value(file: &str, name: &str) -> String {
        let line = file.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        set(line.unwrap_or_else(|| panic!("{name}")))
    }

    #[test]
    fn the_hardened_posture_is_that_of_the_shipped_files() {
        let (plain, hardened) = (include_str!("../../../compose.yml"), include_str!("../../../compose.hardened.yml"));
        assert_eq!(value(plain, "cap_drop"), "[ALL]");
        let mut wanted = vec!["--cap-drop=ALL".to_owned()];
        wanted.extend(list(plain, "cap_add:").iter().map(|name| format!("--cap-add={name}")));
        wanted.extend(list(plain, "security_opt:").iter().map(|option| format!("--security-opt={option}")));
        wanted.push(format!("--pids-limit={}", value(plain, "pids_limit")));
        assert_eq!(value(hardened, "read_only"), "true");
        wanted.push("--read-only".to_owned());
        wanted.extend(list(hardened, "tmpfs:").iter().map(|place| format!("--tmpfs={place}")));
        wanted.extend(list(hardened, "volumes:").iter().map(|place| format!("--volume={place}")));
        assert_eq!(HARDENED.map(str::to_owned).to_vec(), wanted);
        // Nothing else of the runner's container is set there that `docker run` would have to be told.
        let keys = |file: &str, from: &str| -> Vec<String> {
            let block = file
                .lines()
                .skip_while(|line| !line.starts_with(from))
                .skip(1)
                .take_while(|line| line.starts_with(' '));
            block
                .filter(|line| {
                    line.starts_with("  ") && !line.starts_with("   ") && !line.trim_start().starts_with('#')
                })
                .filter_map(|line| line.trim().split_once(':').map(|(key, _)| key.to_owned()))
                .collect()
        };
        assert_eq!(keys(hardened, "x-hardened"), ["read_only", "tmpfs", "volumes"]);
        let known = [
            "restart",
            "stop_grace_period",
            "init",
            "healthcheck",
            "cap_drop",
            "cap_add",
            "security_opt",
            "pids_limit",
            "mem_limit",
            "cpus",
            "logging",
        ];
        assert_eq!(keys(plain, "x-runner"), known);
    }
}
