//! What a listener says, in its order, with a look at what is still to be heard.

use std::collections::VecDeque;

use tokio::sync::mpsc::UnboundedReceiver;

use crate::agent::words::Marker;

/// What one listener says.
pub(super) struct Hearing {
    said: UnboundedReceiver<Marker>,
    /// What was looked at and is still to be heard.
    ahead: VecDeque<Marker>,
}

impl Hearing {
    pub(super) fn new(said: UnboundedReceiver<Marker>) -> Self {
        Self { said, ahead: VecDeque::new() }
    }

    /// The next that it says; `None` when it will say no more.
    pub(super) async fn next(&mut self) -> Option<Marker> {
        match self.ahead.pop_front() {
            Some(marker) => Some(marker),
            None => self.said.recv().await,
        }
    }

    /// The next that it has said already.
    pub(super) fn said(&mut self) -> Option<Marker> {
        self.ahead.pop_front().or_else(|| self.said.try_recv().ok())
    }

    /// Whether it has said that a job begins, and nobody has heard it yet.
    pub(super) fn announces_job(&mut self) -> bool {
        while let Ok(marker) = self.said.try_recv() {
            self.ahead.push_back(marker);
        }
        self.ahead.iter().any(|marker| matches!(marker, Marker::Running(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    #[tokio::test]
    async fn a_look_ahead_takes_nothing_away_and_changes_no_order() {
        let (sender, said) = unbounded_channel();
        let mut hearing = Hearing::new(said);
        sender.send(Marker::Listening).unwrap();
        assert!(!hearing.announces_job());
        sender.send(Marker::Running("a job".to_owned())).unwrap();
        sender.send(Marker::Listening).unwrap();
        assert!(hearing.announces_job() && hearing.announces_job());
        sender.send(Marker::Version("1.2.3".to_owned())).unwrap();
        assert_eq!(hearing.next().await, Some(Marker::Listening));
        assert_eq!(hearing.said(), Some(Marker::Running("a job".to_owned())));
        assert!(!hearing.announces_job(), "it has been heard");
        assert_eq!(hearing.next().await, Some(Marker::Listening));
        assert_eq!(hearing.said(), Some(Marker::Version("1.2.3".to_owned())));
        drop(sender);
        assert_eq!((hearing.said(), hearing.next().await), (None, None));
    }
}
