//! The credential: which of those that GitHub knows was given, and whether it can be one.

use super::{jit, jwt};
use crate::config::{Reader, SecretSource};
use crate::encode::digest;
use crate::shown::quoted;

#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// A personal access token: it can ask for anything.
    Pat(SecretSource),
    /// A GitHub App: it can ask for tokens that can ask for anything.
    App(AppKey),
    /// A registration token: it can configure and remove.
    RegistrationToken(SecretSource),
    /// A just-in-time configuration: a registration that somebody else made.
    JitConfig(SecretSource),
}

impl Credential {
    /// Where the secret comes from.
    pub(super) fn source(&self) -> &SecretSource {
        match self {
            Self::Pat(source) | Self::RegistrationToken(source) | Self::JitConfig(source) => source,
            Self::App(app) => &app.key,
        }
    }

    /// Tells it from others, and says nothing about it; `None` when it cannot be read. What it is limited to is an App's own at each
    /// of its installations.
    pub(super) fn fingerprint(&self) -> Option<String> {
        let secret = self.source().read().ok()?;
        let (issuer, installation) = match self {
            Self::App(app) => (app.issuer.as_str(), app.installation.map(|id| id.to_string()).unwrap_or_default()),
            Self::Pat(_) | Self::RegistrationToken(_) | Self::JitConfig(_) => ("", String::new()),
        };
        Some(digest(&["oscr credential", secret.expose(), issuer, &installation]))
    }

    /// Whether GitHub's API answers to it.
    pub(super) fn asks(&self) -> bool {
        matches!(self, Self::Pat(_) | Self::App(_))
    }
}

/// A GitHub App, and how it proves to be it.
#[derive(Debug, Clone)]
pub(super) struct AppKey {
    /// Its id or client id.
    pub issuer: String,
    /// Its private key.
    pub key: SecretSource,
    /// The installation, if the user named it.
    pub installation: Option<u64>,
}

/// The one credential; `None` when there is none that could be used, which the reader then knows.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Credential> {
    let problems = reader.problems();
    let app = app(reader);
    let pat = reader.secret("GITHUB_PAT");
    let token = reader.secret("RUNNER_TOKEN");
    let jit_config = reader.secret("ACTIONS_RUNNER_INPUT_JITCONFIG");
    if let Some(source) = &jit_config {
        if let Ok(value) = source.read()
            && let Err(error) = jit::page(value.expose())
        {
            reader.problem(
                &source.setting,
                format!("is no just-in-time configuration: {error}"),
                "give the encoded_jit_config that generate-jitconfig answered with, as it is",
            );
        }
        if app.is_some() || pat.is_some() || token.is_some() {
            reader.problem(
                &source.setting,
                "is complete by itself, but another credential is given too",
                "keep one of them",
            );
        }
    }
    let mut given: Vec<Credential> = app.map(Credential::App).into_iter().collect();
    given.extend(pat.map(Credential::Pat));
    given.extend(token.map(Credential::RegistrationToken));
    given.extend(jit_config.map(Credential::JitConfig));
    let mut given = given.into_iter();
    let Some(first) = given.next() else {
        // One that cannot be read was meant to be there: its own problem says all.
        if reader.problems() == problems {
            let secrets = ["GITHUB_PAT", "GITHUB_APP_PRIVATE_KEY", "RUNNER_TOKEN", "ACTIONS_RUNNER_INPUT_JITCONFIG"];
            reader.problem(
                "GITHUB_PAT",
                format!("there is no credential{}", reader.empty_files(&secrets)),
                "set GITHUB_PAT_FILE (better) or GITHUB_PAT to a personal access token, or GITHUB_APP_ID and \
                 GITHUB_APP_PRIVATE_KEY_FILE, or RUNNER_TOKEN to a registration token, or ACTIONS_RUNNER_INPUT_JITCONFIG",
            );
        }
        return None;
    };
    for other in given {
        reader.note(format!(
            "{} is used; {} is not needed beside it and has no effect",
            first.source().setting,
            other.source().setting
        ));
    }
    Some(first)
}

/// The GitHub App, if one is named.
fn app(reader: &mut Reader<'_>) -> Option<AppKey> {
    let problems = reader.problems();
    let issuer = reader.text("GITHUB_APP_ID");
    let key = reader.secret("GITHUB_APP_PRIVATE_KEY");
    let installation = reader.text("GITHUB_APP_INSTALLATION_ID");
    let installation = installation.map(|text| match text.parse::<u64>() {
        Ok(id) => id,
        Err(_) => {
            reader.problem(
                "GITHUB_APP_INSTALLATION_ID",
                format!("{} is no number", quoted(&text)),
                "write the number at the end of the address of the installation's page, or unset it",
            );
            0
        }
    });
    if let Some(issuer) = &issuer
        && !issuer.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
    {
        reader.problem(
            "GITHUB_APP_ID",
            format!("{} is neither an id nor a client id", quoted(issuer)),
            "copy it from the App's page: 123456, or Iv1.0123456789abcdef",
        );
    }
    // It was read a moment ago, so what can fail now is its form.
    if let Some(source) = &key
        && let Ok(value) = source.read()
        && let Err(error) = jwt::check(&value)
    {
        reader.problem(
            &source.setting,
            format!("cannot be used: {error}"),
            "generate a private key on the App's page, and give the file that GitHub hands out as it is",
        );
    }
    match (issuer, key) {
        (Some(issuer), Some(key)) => Some(AppKey { issuer, key, installation }),
        (Some(_), None) if reader.problems() == problems => {
            reader.problem(
                "GITHUB_APP_PRIVATE_KEY",
                format!("is not set, but GITHUB_APP_ID is{}", reader.empty_files(&["GITHUB_APP_PRIVATE_KEY"])),
                "set GITHUB_APP_PRIVATE_KEY_FILE (better) or GITHUB_APP_PRIVATE_KEY to the App's private key",
            );
            None
        }
        (None, Some(_)) => {
            reader.problem(
                "GITHUB_APP_ID",
                "is not set, but the private key of an App is",
                "set it to the App's id or client id",
            );
            None
        }
        _ => None,
    }
}
