//! The setting about newer agents.

use super::reader::Reader;
use super::values::parse_flag;
use crate::shown::quoted;

/// Whether newer agents than the image's are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentUpdate {
    /// Where the forge gives no jobs to old ones, in time.
    Auto,
    /// As soon as one is offered.
    Yes,
    /// Never.
    No,
}

impl AgentUpdate {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let Some(value) = reader.text("OSCR_AGENT_UPDATE") else { return Self::Auto };
        match (value.eq_ignore_ascii_case("auto"), parse_flag(&value)) {
            (true, _) => Self::Auto,
            (_, Some(true)) => Self::Yes,
            (_, Some(false)) => Self::No,
            (_, None) => {
                let what = format!("{} is neither auto, nor true, nor false", quoted(&value));
                reader.problem("OSCR_AGENT_UPDATE", what, "use auto, true or false");
                Self::Auto
            }
        }
    }
}
