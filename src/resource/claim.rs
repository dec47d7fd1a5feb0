//! Who waits or holds, in words for people.

use serde::{Deserialize, Serialize};

/// Who waits or holds, for people: the content of a ticket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// The runner's name, or who runs which program.
    pub who: String,
    /// Whose runner it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The organisation, user or enterprise behind it, which those who share the hardware know anyway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The job's repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The page of the job's run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_url: Option<String>,
    /// The job's name, where its run has no page that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// What a person has to say about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Since when it waits or, for a holder, holds (RFC 3339).
    pub since: String,
}

/// What jobs of other repositories are told of a runner that has what they wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Its owner.
    Owner,
    /// All that is known.
    All,
}

impl Claim {
    /// A claim of this name that begins now.
    #[must_use]
    pub(crate) fn now(who: String) -> Self {
        let since = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
        Self { who, since, ..Self::default() }
    }

    /// Whether it is a person's or a script's: those said themselves what others read.
    fn is_persons(&self) -> bool {
        [&self.scope, &self.owner, &self.repository, &self.run_url, &self.job].iter().all(|part| part.is_none())
    }

    /// As everybody may read it who can see that the hardware is in use.
    #[must_use]
    pub(super) fn for_strangers(&self, tell: Tell) -> Self {
        if tell == Tell::All || self.is_persons() {
            return self.clone();
        }
        let owner = self.owner.as_deref().unwrap_or("another owner");
        Self { who: format!("a runner of {owner}"), since: self.since.clone(), ..Self::default() }
    }

    /// As `asker` may read it.
    #[must_use]
    pub(super) fn told_to(&self, asker: &Self, tell: Tell) -> Self {
        // A name alone may be one at two servers.
        let server = |claim: &Self| {
            let url = claim.run_url.clone().unwrap_or_default();
            url.split_once(claim.repository.as_deref().unwrap_or_default()).map(|(server, _)| server.to_owned())
        };
        if self.repository.is_some() && self.repository == asker.repository && server(self) == server(asker) {
            return self.clone();
        }
        self.for_strangers(tell)
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.who)?;
        if let Some(scope) = &self.scope {
            write!(f, " of {scope}")?;
        }
        match (&self.run_url, &self.job) {
            (Some(url), _) => write!(f, " ({url})")?,
            (None, Some(job)) => write!(f, " (job {job})")?,
            (None, None) => {}
        }
        if let Some(note) = &self.note {
            write!(f, " ({note})")?;
        }
        if !self.since.is_empty() {
            write!(f, " since {}", self.since)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(repository: &str, server: &str) -> Claim {
        Claim {
            scope: Some(format!("repository {repository}")),
            owner: Some("acme".to_owned()),
            repository: Some(repository.to_owned()),
            run_url: Some(format!("https://{server}/{repository}/actions/runs/7")),
            ..Claim::now("oscr-1".to_owned())
        }
    }

    #[test]
    fn a_job_of_another_repository_is_told_the_owner_alone() {
        let holder = of("acme/secret", "github.com");
        let since = &holder.since;
        for stranger in
            [of("umbrella/os", "github.com"), of("acme/secret", "other.example"), Claim::now("x".to_owned())]
        {
            let told = holder.told_to(&stranger, Tell::Owner).to_string();
            assert_eq!(told, format!("a runner of acme since {since}"));
            assert!(holder.told_to(&stranger, Tell::All).to_string().contains("acme/secret"));
        }
        let own = holder.told_to(&of("acme/secret", "github.com"), Tell::Owner);
        assert_eq!(own, holder);
        // A record of an earlier version says no owner, and its scope may name a repository.
        let earlier = Claim { owner: None, repository: None, ..holder };
        assert_eq!(earlier.for_strangers(Tell::Owner).who, "a runner of another owner");
    }

    #[test]
    fn of_the_record_of_another_version_is_read_what_is_known() {
        let older = include_str!("../../tests/corpus/holder/seed-1");
        let newer = older.replacen('{', r#"{"of_tomorrow":[1],"#, 1);
        for text in [older, &newer] {
            let claim: Claim = serde_json::from_str(text).unwrap();
            assert_eq!((claim.who.as_str(), claim.owner), ("oscr-a-1234", None), "{text}");
        }
    }

    #[test]
    fn a_person_is_told_of_in_their_own_words() {
        let note = Some("until noon".to_owned());
        let person = Claim { note, ..Claim::now("alice on bench (picocom, process 7)".to_owned()) };
        let told = person.told_to(&of("umbrella/os", "github.com"), Tell::Owner).to_string();
        assert!(told.starts_with("alice on bench (picocom, process 7) (until noon) since 20"), "{told}");
    }
}
