//! A registry of images on this machine's loopback, for what fetches an image without Docker. As the large ones do, it gives everybody a
//! token and wants to see it, and sends blobs from a server of another name, which wants to see none.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const TOKEN: &str = "for-anybody";

#[derive(Default)]
struct Shared {
    /// By digest or tag: the kind and the bytes.
    contents: BTreeMap<String, (&'static str, Vec<u8>)>,
    /// Those that were asked, by path.
    requests: Vec<String>,
    wants_password: bool,
}

/// It serves until the process ends.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// An empty one, at a port that was free.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let registry = Self { address: listener.local_addr()?, shared: Arc::default() };
        let (address, shared) = (registry.address, Arc::clone(&registry.shared));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // Whoever asked may be gone.
                thread::spawn(move || drop(serve(stream, address, &shared)));
            }
        });
        Ok(registry)
    }

    /// As it stands in front of an image's name.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The paths that were asked for since the last look.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.shared).requests)
    }

    /// From now on it gives no token to strangers.
    pub fn want_password(&self) {
        lock(&self.shared).wants_password = true;
    }

    /// Keeps these bytes; what a manifest says of them.
    fn keep(&self, kind: &'static str, bytes: Vec<u8>) -> Value {
        let digest =
            Sha256::digest(&bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"));
        let said = json!({ "mediaType": kind, "size": bytes.len(), "digest": digest });
        lock(&self.shared).contents.insert(digest, (kind, bytes));
        said
    }

    /// Adds an image of one file; its digest.
    pub fn add_image(&self, file: &str, bytes: &[u8]) -> io::Result<String> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, file, bytes)?;
        let layer = self.keep(LAYER, archive.into_inner()?.finish()?);
        let config = self.keep("application/vnd.oci.image.config.v1+json", b"{}".to_vec());
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        Ok(digest_of(&self.keep(MANIFEST, manifest.to_string().into_bytes())))
    }

    /// Adds an image for several architectures, each with the digest of its own; its digest.
    pub fn add_index(&self, images: &[(&str, &str)]) -> String {
        let mut manifests: Vec<Value> = images
            .iter()
            .map(|(architecture, digest)| {
                let platform = json!({ "os": "linux", "architecture": architecture });
                json!({ "mediaType": MANIFEST, "size": 1, "digest": digest, "platform": platform })
            })
            .collect();
        // What is attested of them is listed with them.
        let unknown = json!({ "os": "unknown", "architecture": "unknown" });
        manifests.insert(0, json!({ "mediaType": MANIFEST, "size": 1, "digest": "sha256:0", "platform": unknown }));
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        digest_of(&self.keep(INDEX, index.to_string().into_bytes()))
    }

    /// Has a tag, or another digest, name what a digest names.
    pub fn name(&self, name: &str, digest: &str) {
        let mut shared = lock(&self.shared);
        let named = shared.contents[digest].clone();
        shared.contents.insert(name.to_owned(), named);
    }

    /// Changes the bytes behind each layer, and nothing that is said of them.
    pub fn spoil_layers(&self) {
        for (kind, bytes) in lock(&self.shared).contents.values_mut() {
            if *kind == LAYER {
                bytes.push(0);
            }
        }
    }
}

fn digest_of(said: &Value) -> String {
    said["digest"].as_str().unwrap_or_default().to_owned()
}

fn serve(stream: TcpStream, address: SocketAddr, shared: &Mutex<Shared>) -> io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some(_) => {}
            None => break,
        }
    }
    // A proxy is told the server too.
    let path =
        target.strip_prefix("http://").map_or(target.as_str(), |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    let mut shared = lock(shared);
    shared.requests.push(path.to_owned());
    let (status, headers, body) = answer(path, authorization.as_deref(), address, &shared);
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    drop(shared);
    (&stream).write_all(head.as_bytes())?;
    (&stream).write_all(&body)
}

fn answer(path: &str, authorization: Option<&str>, address: SocketAddr, shared: &Shared) -> (u16, String, Vec<u8>) {
    let nothing = |status: u16, headers: &str| (status, headers.to_owned(), b"{}".to_vec());
    let found = |name: &str| match shared.contents.get(name) {
        Some((kind, bytes)) => (200, format!("Content-Type: {kind}\r\n"), bytes.clone()),
        None => nothing(404, ""),
    };
    if let Some(digest) = path.strip_prefix("/elsewhere/") {
        return if authorization.is_some() { nothing(400, "") } else { found(digest) };
    }
    if path.starts_with("/token?") {
        let token = json!({ "token": TOKEN }).to_string().into_bytes();
        let complete = path.to_lowercase().contains("?service=images&scope=repository%3a");
        return if complete { (200, String::new(), token) } else { nothing(400, "") };
    }
    let Some((repository, name)) = path.strip_prefix("/v2/").and_then(|rest| rest.rsplit_once('/')) else {
        return nothing(404, "");
    };
    if shared.wants_password {
        return nothing(401, "WWW-Authenticate: Basic realm=\"images\"\r\n");
    }
    if authorization != Some(&format!("Bearer {TOKEN}")) {
        let repository = repository.trim_end_matches("/manifests").trim_end_matches("/blobs");
        let challenge = format!(
            "Bearer realm=\"http://{address}/token\",service=\"images\",scope=\"repository:{repository}:pull\""
        );
        return nothing(401, &format!("WWW-Authenticate: {challenge}\r\n"));
    }
    match repository.ends_with("/blobs") {
        true => nothing(307, &format!("Location: http://localhost:{}/elsewhere/{name}\r\n", address.port())),
        false => found(name),
    }
}
