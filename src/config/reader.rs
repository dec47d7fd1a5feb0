//! Reading settings one by one while collecting every problem, so that a user sees all of them at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::Environment;
use super::problem::Problem;
use super::reading;
use super::secret::{Secret, SecretError, SecretSource};
use super::table::{Setting, SettingKind};
use super::values::{parse_duration, parse_flag, parse_size};
use crate::log;
use crate::shown::{quoted, secrets_in, shown, without_secrets};

/// The settings that may hold a password: who may use a proxy is said in its address.
const WITH_PASSWORD: [&str; 7] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "VSTS_HTTP_PROXY"];

/// Reads settings, and remembers what was wrong, what was read under another name, and what was effective.
#[derive(Debug)]
pub struct Reader<'a> {
    environment: &'a Environment,
    tables: Vec<&'static [Setting]>,
    problems: Vec<Problem>,
    notes: Vec<String>,
    warnings: Vec<String>,
    effective: BTreeMap<String, String>,
    used: BTreeSet<String>,
    /// The other names under which settings are given.
    given_as: BTreeMap<&'static str, String>,
    /// What there is to say about empty files of secrets, by setting.
    empty: Vec<(&'static str, String)>,
}

impl<'a> Reader<'a> {
    /// Reads from `environment`, with the settings that `tables` list.
    #[must_use]
    pub(crate) fn new(environment: &'a Environment, tables: Vec<&'static [Setting]>) -> Self {
        let mut reader = Self {
            environment,
            tables,
            problems: Vec::new(),
            notes: Vec::new(),
            warnings: Vec::new(),
            effective: BTreeMap::new(),
            used: BTreeSet::new(),
            given_as: BTreeMap::new(),
            empty: Vec::new(),
        };
        for name in &environment.unreadable {
            if reader.setting(name).is_some() {
                reader.problem(name, "is not UTF-8 text", "write it in UTF-8");
            }
        }
        reader
    }

    /// Records a problem. It is told of the name that is given: whoever set another one beside it would contradict themselves.
    pub fn problem(&mut self, setting: &str, what: impl fmt::Display, cure: impl fmt::Display) {
        let setting = self.given_as.get(setting).map_or(setting, String::as_str);
        self.problems.push(Problem::of(setting, what, cure));
    }

    /// How many problems were recorded so far.
    #[must_use]
    pub(crate) fn problems(&self) -> usize {
        self.problems.len()
    }

    /// Records something that the user should know and that is not wrong.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Records something that can be meant, and will do harm.
    pub(crate) fn warning(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Records a value that was worked out, for `oscr-entry check`.
    pub(crate) fn effective(&mut self, name: &str, value: impl fmt::Display) {
        self.effective.insert(name.to_owned(), shown(&value.to_string()));
    }

    /// A variable's value, which may be a secret.
    fn given(&mut self, name: &str) -> Option<String> {
        let value = self.environment.get(name)?.to_owned();
        if self.used.insert(name.to_owned()) && self.environment.is_quoted(name) {
            self.note(format!("{name} stands in quotes, which are no part of its value"));
        }
        Some(value)
    }

    /// A variable that holds no secret, such as one of another container's names. Where it holds one all the same, that is a problem,
    /// and the rest of the value is read.
    pub(crate) fn foreign(&mut self, name: &str) -> Option<String> {
        let known = self.used.contains(name);
        let value = self.given(name)?;
        if WITH_PASSWORD.contains(&name) || secrets_in(&value).is_empty() {
            return Some(value);
        }
        if !known {
            let mut settings = self.tables.iter().flat_map(|table| table.iter());
            let cure = match settings.find(|setting| setting.kind == SettingKind::Secret).map(|setting| setting.name) {
                Some(credential) => format!("take it out, and revoke it: {credential}_FILE is for the token"),
                None => "take it out, and revoke it".to_owned(),
            };
            self.problem(name, "holds a password or a token, which whoever looks at this container can read", cure);
        }
        without_secrets(&value)
    }

    /// A setting's text, under its own name or an alias; `None` when unset.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        let (found, value) = self.lookup(name)?;
        if found != name {
            self.note(format!("{found} was read as {name}"));
            self.given_as.insert(name, found);
        }
        self.effective.insert(name.to_owned(), shown(&value));
        Some(value)
    }

    /// The text of a setting that all programs read, in capitals and in small letters. Where the two differ, the small ones are what
    /// most of them take, the agents too.
    pub(crate) fn of_either_case(&mut self, name: &'static str) -> Option<String> {
        let given = self.of_all_names(name);
        if let [(capital, value), (small, other)] = given.as_slice()
            && value != other
        {
            self.note(format!("{small} is used: {capital} says something else, and programs take the small letters"));
        }
        let (found, value) = given.into_iter().next_back()?;
        if found != name {
            self.given_as.insert(name, found);
        }
        self.effective.insert(name.to_owned(), shown(&value));
        Some(value)
    }

    /// `true`/`yes`/`on`/`1` or `false`/`no`/`off`/`0`, in any case, and nothing else.
    pub(crate) fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.text(name)?;
        let flag = parse_flag(&value);
        if flag.is_none() {
            self.problem(
                name,
                format!("{} is neither true nor false", quoted(&value)),
                "use true or false (yes, no, on, off, 1, 0)",
            );
        }
        flag
    }

    /// A duration: seconds, or numbers with units.
    pub(crate) fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        let Some(value) = self.text(name) else {
            self.effective.insert(name.to_owned(), humantime::format_duration(default).to_string());
            return default;
        };
        parse_duration(&value).unwrap_or_else(|| {
            self.problem(
                name,
                format!("{} is not a duration", quoted(&value)),
                "write seconds (90), or numbers with s, m, h or d (30m, 1h 30m), a week at most",
            );
            default
        })
    }

    /// A number of bytes, with `k`, `m`, `g` or `t` for powers of 1024; `None` when unset.
    pub(crate) fn size(&mut self, name: &'static str) -> Option<u64> {
        let value = self.text(name)?;
        let size = parse_size(&value);
        if size.is_none() {
            self.problem(
                name,
                format!("{} is no number of bytes", quoted(&value)),
                "write bytes, or a number with k, m, g or t (500m, 2g)",
            );
        }
        size
    }

    /// A duration that is unset, or zero, for none.
    pub(crate) fn optional_duration(&mut self, name: &'static str) -> Option<Duration> {
        self.text(name)?;
        Some(self.duration(name, Duration::ZERO)).filter(|time| !time.is_zero())
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)], default: T) -> T {
        let Some(value) = self.text(name) else {
            return default;
        };
        let wanted = value.to_ascii_lowercase();
        choices.iter().find(|(word, _)| *word == wanted).map(|(_, choice)| *choice).unwrap_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.problem(name, format!("{} is not known", quoted(&value)), format!("use one of: {}", words.join(", ")));
            default
        })
    }

    /// A list separated by commas or ends of lines.
    pub(crate) fn list(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.text(name)?;
        Some(self.entries(name, &value))
    }

    /// The entries of all lists whose names begin as `family` does (`NAME_*`), each with the setting that has it.
    pub(crate) fn lists(&mut self, family: &'static str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for name in self.given_like(family) {
            if let Some(value) = self.foreign(&name) {
                self.effective.insert(name.clone(), shown(&value));
                found.extend(self.entries(&name, &value).into_iter().map(|entry| (name.clone(), entry)));
            }
        }
        found
    }

    fn entries(&mut self, name: &str, value: &str) -> Vec<String> {
        let (entries, dressed) = reading::list(value);
        if dressed {
            self.note(format!("{name}: the quotes and brackets around its entries are no part of them"));
        }
        entries.into_iter().map(str::to_owned).collect()
    }

    /// A secret from `NAME_FILE` or `NAME`, under its own name or an alias. A file that is empty counts as unset, because
    /// that is what Compose makes of a secret whose variable is empty.
    pub fn secret(&mut self, name: &'static str) -> Option<SecretSource> {
        let mut found: Vec<SecretSource> = Vec::new();
        for candidate in self.names(name) {
            let file_name = format!("{candidate}_FILE");
            if let Some(file) = self.given(&file_name) {
                let source = SecretSource::file(&file_name, PathBuf::from(&file));
                match source.read() {
                    Ok(_) => found.push(source),
                    // Compose mounts a device, `/dev/null`, for what nobody gave.
                    Err(error @ SecretError::Empty { .. }) if Path::new(&file).is_file() => {
                        self.empty.push((name, error.to_string()));
                    }
                    Err(SecretError::Empty { .. }) => {}
                    // It may be the secret itself.
                    Err(_) if !file.starts_with('/') => {
                        log::redact(&file);
                        self.problem(
                            &file_name,
                            "does not name a file that is there, and is no absolute path",
                            format!(
                                "write the path of the file with the secret, or, if this is the secret, {candidate}"
                            ),
                        );
                    }
                    Err(error) => self.no_secret(&file_name, &error),
                }
            }
            if let Some(value) = self.given(&candidate) {
                let source = SecretSource::environment(&candidate, Secret::new(value));
                match source.read() {
                    Ok(_) => found.push(source),
                    Err(error) => self.no_secret(&candidate, &error),
                }
            }
        }
        if found.len() > 1 {
            let names: Vec<&str> = found.iter().map(|source| source.setting.as_str()).collect();
            self.problem(name, format!("is given more than once ({})", names.join(", ")), "keep one of them");
        }
        let source = found.into_iter().next()?;
        if source.is_named() {
            self.note(format!("{}: the name before the = is no part of the secret", source.setting));
        }
        if source.setting.trim_end_matches("_FILE") != name {
            self.note(format!("{} was read as {name}", source.setting));
        }
        self.effective.insert(name.to_owned(), format!("*** from {source}"));
        Some(source)
    }

    fn no_secret(&mut self, setting: &str, error: &SecretError) {
        let what = error.to_string();
        let what = what.strip_prefix(setting).map(str::trim_start).unwrap_or(&what);
        self.problem(setting, what, error.cure());
    }

    /// For a problem with secrets that are missing: which of them have files that are there and empty, after a colon.
    #[must_use]
    pub(crate) fn empty_files(&self, secrets: &[&str]) -> String {
        let found = self.empty.iter().filter(|(name, _)| secrets.contains(name)).map(|(_, what)| what.as_str());
        match found.collect::<Vec<_>>()[..] {
            [] => String::new(),
            ref found => format!(": {}", found.join("; ")),
        }
    }

    /// The variables that are set with this name, or that begin so (`*`).
    pub(crate) fn given_like(&self, pattern: &str) -> Vec<String> {
        let set = self.environment.iter().map(|(name, _)| name).filter(|name| fits(pattern, name));
        set.filter(|name| self.environment.get(name).is_some()).map(str::to_owned).collect()
    }

    /// Notes which of our settings that are set belong to another forge than this one.
    pub(crate) fn note_settings_of(&mut self, forge: &str, settings: &[Setting]) {
        for name in settings.iter().flat_map(Setting::names) {
            let ours = name.starts_with("OSCR_") && self.setting(name).is_none();
            if ours && self.environment.get(name).is_some() {
                self.used.insert(name.to_owned());
                self.notes.push(format!("{name} is a setting for {forge} and has no effect here"));
            }
        }
    }

    /// Ends the reading: the notes, the warnings and the effective values, or all problems. A setting of ours that nobody asked for is
    /// most likely a misspelt one and is noted.
    ///
    /// # Errors
    /// All problems found.
    pub(crate) fn finish(mut self) -> Result<Read, Vec<Problem>> {
        let unknown: Vec<&str> = self
            .environment
            .iter()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with("OSCR_") && !self.used.contains(*name) && self.setting(name).is_none())
            .collect();
        for name in unknown {
            self.notes.push(format!("{name} is no setting of OSCR and has no effect: is it misspelt?"));
        }
        if self.problems.is_empty() {
            Ok(Read { notes: self.notes, warnings: self.warnings, effective: self.effective })
        } else {
            Err(self.problems)
        }
    }

    fn setting(&self, name: &str) -> Option<&'static Setting> {
        self.tables.iter().flat_map(|table| table.iter()).find(|setting| fits(setting.name, name))
    }

    fn names(&self, name: &'static str) -> Vec<String> {
        match self.setting(name) {
            Some(setting) => setting.names().map(str::to_owned).collect(),
            None => vec![name.to_owned()],
        }
    }

    fn lookup(&mut self, name: &'static str) -> Option<(String, String)> {
        let given = self.of_all_names(name);
        if let [(first, value), (second, other), ..] = given.as_slice()
            && value != other
        {
            self.problem(name, format!("{first} and {second} say different things"), "keep one of them");
        }
        given.into_iter().next()
    }

    /// What a setting is set to, under its own name and its aliases.
    fn of_all_names(&mut self, name: &'static str) -> Vec<(String, String)> {
        self.names(name)
            .into_iter()
            .filter_map(|candidate| self.foreign(&candidate).map(|value| (candidate, value)))
            .collect()
    }
}

/// Whether a variable's name is this one, or begins so (`*`).
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => name.starts_with(begin),
        None => name == pattern,
    }
}

/// What a complete reading left behind.
#[derive(Debug)]
pub(crate) struct Read {
    /// For the log: names that were read as others, and so on.
    pub notes: Vec<String>,
    /// For the log, louder: what can be meant, and will do harm.
    pub warnings: Vec<String>,
    /// The effective value of each setting, secrets redacted.
    pub effective: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Setting] = &[
        Setting { name: "FLAG", kind: SettingKind::Flag, default: "", about: "", aliases: &[] },
        Setting { name: "PLACE", kind: SettingKind::Text, default: "", about: "", aliases: &["SPOT"] },
        Setting { name: "KEY", kind: SettingKind::Secret, default: "", about: "", aliases: &["OTHER_KEY"] },
        Setting { name: "WAIT", kind: SettingKind::Duration, default: "", about: "", aliases: &[] },
        Setting { name: "OSCR_MORE_*", kind: SettingKind::List, default: "", about: "", aliases: &[] },
    ];

    #[test]
    fn every_problem_is_reported_at_once() {
        let environment =
            Environment::from([("FLAG", "maybe"), ("WAIT", "soon"), ("KEY", "one1"), ("OTHER_KEY", "two2")]);
        let mut reader = Reader::new(&environment, vec![TABLE]);
        assert_eq!(reader.flag("FLAG"), None);
        assert_eq!(reader.duration("WAIT", Duration::from_secs(3)), Duration::from_secs(3));
        reader.secret("KEY");
        let problems = reader.finish().unwrap_err();
        let settings: Vec<&str> = problems.iter().map(|problem| problem.setting.as_str()).collect();
        assert_eq!(settings, ["FLAG", "WAIT", "KEY"]);
        assert!(problems.iter().all(|problem| !problem.cure.is_empty() && !problem.to_string().contains("one1")));
    }

    #[test]
    fn an_alias_is_read_and_noted_and_a_contradiction_is_a_problem() {
        let environment = Environment::from([("SPOT", "here"), ("OSCR_TYPO", "1")]);
        let mut reader = Reader::new(&environment, vec![TABLE]);
        assert_eq!(reader.text("PLACE").as_deref(), Some("here"));
        let read = reader.finish().unwrap();
        assert_eq!(read.notes[0], "SPOT was read as PLACE");
        assert!(read.notes[1].starts_with("OSCR_TYPO is no setting"));

        let environment = Environment::from([("SPOT", "here"), ("PLACE", "there")]);
        let mut reader = Reader::new(&environment, vec![TABLE]);
        reader.text("PLACE");
        assert_eq!(reader.finish().unwrap_err().len(), 1);
    }

    #[test]
    fn every_list_of_a_family_is_read_and_says_who_has_it() {
        let environment = Environment::from([("OSCR_MORE_B", "x, y"), ("OSCR_MORE_A", "z"), ("OSCR_MORES", "w")]);
        let mut reader = Reader::new(&environment, vec![TABLE]);
        let entry = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let entries = [entry("OSCR_MORE_A", "z"), entry("OSCR_MORE_B", "x"), entry("OSCR_MORE_B", "y")];
        assert_eq!(reader.lists("OSCR_MORE_*"), entries);
        let read = reader.finish().unwrap();
        assert_eq!(read.effective["OSCR_MORE_B"], "x, y");
        assert!(read.notes.len() == 1 && read.notes[0].starts_with("OSCR_MORES is no setting"), "{:?}", read.notes);
    }

    #[test]
    fn an_empty_secret_file_is_no_secret_and_a_missing_one_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("key");
        std::fs::write(&file, "").unwrap();
        let environment = Environment::from([("KEY_FILE", file.to_str().unwrap())]);
        let mut reader = Reader::new(&environment, vec![TABLE]);
        assert!(reader.secret("KEY").is_none());
        assert_eq!(reader.empty_files(&["KEY"]), format!(": KEY_FILE names {}, which is empty", file.display()));
        assert_eq!(reader.empty_files(&["OTHER"]), "");
        assert!(reader.finish().is_ok());

        let environment = Environment::from([("KEY_FILE", "/dev/null")]);
        let mut reader = Reader::new(&environment, vec![TABLE]);
        assert!(reader.secret("KEY").is_none());
        assert_eq!(reader.empty_files(&["KEY"]), "", "what Compose makes of a secret that nobody gave");
        assert!(reader.finish().is_ok());

        let environment = Environment::from([("KEY_FILE", "/nonexistent/key")]);
        let mut reader = Reader::new(&environment, vec![TABLE]);
        assert!(reader.secret("KEY").is_none());
        assert!(reader.finish().unwrap_err()[0].to_string().contains("/nonexistent/key"));
    }
}
