//! What is told of leftovers that have to wait.

use std::collections::BTreeMap;

/// The leftovers that one round could not release, for one line however many they are.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// The forge believes that these have a job.
    pub(super) busy: Vec<String>,
    /// Of earlier configurations, by the scope and what became of the request.
    pub(super) away: BTreeMap<(String, String), Vec<String>>,
}

impl Later {
    /// Says it, if there is anything to say.
    pub(super) fn say(&self) {
        match self.line() {
            Some(line) if self.away.is_empty() => tracing::info!("{line}"),
            Some(line) => tracing::warn!("{line}"),
            None => {}
        }
    }

    fn line(&self) -> Option<String> {
        let busy = match &self.busy[..] {
            [] => None,
            [name] => Some(format!("the forge believes that {name} still runs a job; it is removed later")),
            names => {
                Some(format!("the forge believes that {} still run jobs; they are removed later", names.join(", ")))
            }
        };
        let away = self.away.iter().map(|((scope, fault), names)| {
            format!("{} may still be registered at {scope}; tried again later: {fault}", names.join(", "))
        });
        let parts: Vec<String> = busy.into_iter().chain(away).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_round_could_not_release_is_one_line() {
        let mut later = Later::default();
        assert_eq!(later.line(), None);
        later.busy.push("a".to_owned());
        assert_eq!(later.line().as_deref(), Some("the forge believes that a still runs a job; it is removed later"));
        later.busy.push("b".to_owned());
        for name in ["c", "d"] {
            let why = ("https://old/o".to_owned(), "it does not answer".to_owned());
            later.away.entry(why).or_default().push(name.to_owned());
        }
        assert_eq!(
            later.line().as_deref(),
            Some(
                "the forge believes that a, b still run jobs; they are removed later; c, d may still be registered at \
                 https://old/o; tried again later: it does not answer"
            )
        );
    }
}
