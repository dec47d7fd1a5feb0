//! Addresses as people copy them from a browser or a clone: the organisation or the collection that they lie in.

use reqwest::Url;

/// Microsoft's own host, and what the older hosts of organisations end with.
const HOST: &str = "dev.azure.com";
const OLDER: &str = ".visualstudio.com";

/// The organisation's or collection's address, without a slash at the end.
///
/// # Errors
/// What is wrong with it.
pub(super) fn organisation(text: &str) -> Result<String, &'static str> {
    let no_address = "is no address of an organisation";
    let url = parse(text).ok_or(no_address)?;
    let host = url.host_str().ok_or(no_address)?;
    let segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
    if host == HOST || host.ends_with(".dev.azure.com") {
        // Agents belong to no project.
        let clone = host == "ssh.dev.azure.com" && segments.first() == Some(&"v3");
        return match segments.get(usize::from(clone)) {
            Some(name) if !name.starts_with('_') => Ok(format!("https://{HOST}/{name}")),
            _ => Err("names no organisation"),
        };
    }
    if host == "vs-ssh.visualstudio.com" {
        return segments.get(1).map(|name| format!("https://{name}{OLDER}")).ok_or("names no organisation");
    }
    if host.ends_with(OLDER) {
        let collection = segments.first().filter(|name| name.eq_ignore_ascii_case("DefaultCollection"));
        return Ok(format!("https://{host}{}", collection.map(|name| format!("/{name}")).unwrap_or_default()));
    }
    // On a server of one's own a path can have any number of parts before the collection: only what is certain is taken off.
    let pages = segments.iter().position(|segment| matches!(*segment, "_settings" | "_admin"));
    let collection = &segments[..pages.unwrap_or(segments.len())];
    if collection.is_empty() {
        return Err("names no collection of the server");
    }
    if collection.iter().any(|segment| segment.starts_with('_')) {
        return Err("is the address of something in a collection");
    }
    Ok(format!("{}/{}", url.origin().ascii_serialization(), collection.join("/")))
}

/// Where service principals get their tokens, without a slash at the end, and the tenant, if the address is a tenant's.
pub(super) fn authority(text: &str, tenant: Option<&str>) -> Option<(String, Option<String>)> {
    let url = parse(text)?;
    let segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let of_tenant = segments.iter().position(|segment| {
        Some(*segment) == tenant
            || segments.windows(2).any(|pair| pair[0] == *segment && matches!(pair[1], "oauth2" | "v2.0"))
    });
    let before = &segments[..of_tenant.unwrap_or(segments.len())];
    let base = std::iter::once(url.origin().ascii_serialization()).chain(before.iter().map(|part| (*part).to_owned()));
    let theirs = of_tenant.map(|at| segments[at].to_owned());
    Some((base.collect::<Vec<_>>().join("/"), theirs))
}

/// An address with its scheme, which people leave out, or as git writes it.
fn parse(text: &str) -> Option<Url> {
    let clone = text.split_once(':').filter(|(host, _)| host.contains('@') && !host.contains('/'));
    let written = match (text.split_once("://"), clone) {
        (Some(("ssh", rest)), _) => format!("https://{rest}"),
        (Some(_), _) => text.to_owned(),
        (None, Some((host, path))) => format!("https://{host}/{path}"),
        // A word alone may be an organisation, and may be a server.
        (None, None) if text.contains('.') => format!("https://{text}"),
        (None, None) => return None,
    };
    Url::parse(&written).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
}
