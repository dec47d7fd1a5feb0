//! The requests that OSCR makes of GitHub, and what its refusals mean.

mod ask;
mod examine;
mod moved;
mod package;
mod records;
mod tokens;

pub(super) use ask::Api;

#[cfg(test)]
mod tests {
    use super::package::{Download, package_of};
    use super::records::{Groups, JustInTime, RunnerRecord, Runners};
    use super::tokens::Token;

    #[test]
    fn fuzz_api() {
        use crate::provider::http::Reply;

        crate::fuzz::run("api-github", |bytes| {
            let reply = Reply::of(200, bytes);
            let refused = Reply::of(403, bytes);
            crate::fuzz::assert_plain(&format!("{}{:?}", refused.message(), refused.address()));
            assert!(refused.message().chars().count() <= 300 && reply.message().is_empty());
            let taken = [
                reply.json::<Token>().is_ok(),
                reply.json::<RunnerRecord>().is_ok(),
                reply.json::<Runners>().is_ok(),
                reply.json::<Groups>().is_ok(),
                reply.json::<JustInTime>().is_ok(),
            ];
            let package = reply.json::<Vec<Download>>().map(package_of);
            if let Ok(Ok(package)) = &package {
                assert!(package.version.chars().all(|c| c.is_ascii_digit() || c == '.'));
            }
            (taken, package.map(|package| package.is_ok()).is_ok())
        });
    }
}
