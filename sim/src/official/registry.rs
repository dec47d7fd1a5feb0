//! A registry with one small image, made of programs of the container that it runs in: the official runner pulls every image that a job
//! names, even one that is there, and nobody else has to be in reach for it.

use std::io::{self, Write as _};
use std::process::Command;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Where it listens.
pub(super) const PORT: u16 = 5000;
/// The image's name there.
pub(super) const NAME: &str = "official/job:1";

/// Prints an archive of what steps and the runner need in a container, and a file by which the image is known.
const PACK: &str = r#"folder=$(mktemp -d) && mkdir "$folder/tmp" "$folder/etc" && chmod 1777 "$folder/tmp" && echo "of the image" >"$folder/of-this-image"
echo 'root:x:0:0:root:/:/bin/sh' >"$folder/etc/passwd"
{ for program in sh bash tail cat sleep touch env grep getent wc id; do
    path=$(command -v "$program"); echo "$path"; ldd "$path" | grep -o '/[^ ]*'
done; echo /etc/nsswitch.conf; ls /lib/*/libnss_dns.so.2 /lib/*/libnss_files.so.2 2>/dev/null; } | sort -u |
    tar --create --dereference --directory / --absolute-names --transform 's,^/,,' --files-from - --file "$folder.tar" &&
    tar --append --directory "$folder" --file "$folder.tar" . && ln -s usr/bin "$folder/bin" && { [ ! -L /bin ] || tar --append --directory "$folder" --file "$folder.tar" bin; } &&
    cat "$folder.tar""#;

/// One thing that is pulled.
struct Piece {
    kind: &'static str,
    bytes: Vec<u8>,
    digest: String,
}

impl Piece {
    fn new(kind: &'static str, bytes: Vec<u8>) -> Self {
        let digest = digest(&bytes);
        Self { kind, bytes, digest }
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// The image's layer, its configuration, and what names the two.
fn image() -> io::Result<[Piece; 3]> {
    let packed = Command::new("bash").args(["-euo", "pipefail", "-c", PACK]).output()?;
    if !packed.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&packed.stderr).into_owned()));
    }
    let mut layer = GzEncoder::new(Vec::new(), Compression::fast());
    layer.write_all(&packed.stdout)?;
    let layer = Piece::new("application/vnd.docker.image.rootfs.diff.tar.gzip", layer.finish()?);
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    // An image of this registry's own: what is made of it is found by it.
    let host = std::fs::read_to_string("/etc/hostname")?;
    let configuration = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Env": ["PATH=/usr/bin:/bin"], "Labels": { "oscr.official.registry": host.trim() }, "Cmd": ["sleep", "infinity"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&packed.stdout)] },
    });
    let configuration =
        Piece::new("application/vnd.docker.container.image.v1+json", configuration.to_string().into_bytes());
    let named = |piece: &Piece| json!({ "mediaType": piece.kind, "size": piece.bytes.len(), "digest": piece.digest });
    const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": named(&configuration),
        "layers": [named(&layer)],
    });
    let manifest = Piece::new(MANIFEST, manifest.to_string().into_bytes());
    Ok([manifest, configuration, layer])
}

async fn answer(State(pieces): State<Arc<[Piece; 3]>>, uri: Uri) -> Response {
    if uri.path() == "/v2/" {
        return "{}".into_response();
    }
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let tagged = NAME.rsplit(':').next() == Some(last);
    let piece = if tagged { pieces.first() } else { pieces.iter().find(|piece| piece.digest == last) };
    let Some(piece) = piece else {
        return (StatusCode::NOT_FOUND, "{}").into_response();
    };
    let headers = [(header::CONTENT_TYPE.as_str(), piece.kind), ("docker-content-digest", &piece.digest)];
    (headers, piece.bytes.clone()).into_response()
}

/// `official registry`: serves until the container ends.
pub(super) fn serve() -> io::Result<()> {
    let app = Router::new().fallback(answer).with_state(Arc::new(image()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
        axum::serve(listener, app).await
    })
}
