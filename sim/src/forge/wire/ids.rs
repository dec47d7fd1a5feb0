//! The forge's numbers in the form of UUIDs, which the runner wants.

/// What a number is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Id {
    Client = 1,
    Session = 2,
    Job = 3,
    Plan = 4,
    Timeline = 5,
    Scope = 6,
    Endpoint = 7,
    Server = 8,
    /// Steps of a job begin here; the step's place is added.
    Step = 0x100,
}

/// The UUID of a number.
pub(super) fn uuid(kind: Id, number: u64) -> String {
    nth(kind, 0, number)
}

/// The UUID of the n-th thing that belongs to a number.
pub(super) fn nth(kind: Id, at: usize, number: u64) -> String {
    format!("{:08x}-0000-4000-8000-{number:012x}", kind as usize + at)
}

/// The number that a UUID is of, if it is of that kind.
pub(super) fn number(kind: Id, uuid: &str) -> Option<u64> {
    let number = u64::from_str_radix(uuid.rsplit('-').next()?, 16).ok()?;
    (self::uuid(kind, number) == uuid).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_back_from_its_own_kind_only() {
        let job = uuid(Id::Job, 4711);
        assert_eq!((number(Id::Job, &job), number(Id::Plan, &job)), (Some(4711), None));
        assert_eq!(number(Id::Session, "00000000-0000-0000-0000-000000000000"), None);
    }
}
