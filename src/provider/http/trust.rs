//! Which servers are trusted: those whose certificate the system's authorities or `OSCR_CA_FILE` stand for, and those whose
//! very certificate is among these.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::config::Certificates;
use crate::config::x509::{self, CertificateFacts};
use crate::provider::fault::Fault;

/// What is wrong with a certificate, where the library has no word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error("it is signed by itself, and nobody has named it")]
    BySelf,
    #[error("it is an authority's")]
    Authority,
    #[error("it is of version 1")]
    Version1,
}

/// Whom we trust. The system's certificates are read when they are first needed: a forge without TLS may be all there is.
#[derive(Debug)]
pub(super) struct Trust {
    own: Certificates,
    provider: Arc<CryptoProvider>,
    judge: OnceLock<Result<Judge, Error>>,
}

/// What servers are held against.
#[derive(Debug)]
struct Judge {
    chains: Arc<WebPkiServerVerifier>,
    /// The digests of all certificates that are trusted.
    named: HashSet<[u8; 32]>,
}

impl Trust {
    /// The system's certificates and those of a file.
    ///
    /// # Errors
    /// When the file has none.
    pub(super) fn of(file: Option<&Path>) -> Result<Arc<Self>, Fault> {
        let own = match file {
            None => Certificates::default(),
            Some(file) => {
                let content = fs::read(file).map_err(|error| Fault::Unreachable(format!("OSCR_CA_FILE: {error}")))?;
                Certificates::of(&content)
            }
        };
        if file.is_some() && own.roots().0.is_empty() {
            let what = "the file of OSCR_CA_FILE has no certificate in it that can be used any more";
            return Err(Fault::denied(what, "put a certificate there as PEM or DER, or unset it"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Arc::new(Self { own, provider, judge: OnceLock::new() }))
    }

    /// Reads the system's certificates.
    ///
    /// # Errors
    /// When there are none at all.
    pub(super) fn prepare(&self) -> Result<(), Fault> {
        self.judge().map(drop).map_err(|_| {
            Fault::denied(
                "this image has no CA certificates, so no forge can be trusted",
                "install the package ca-certificates in the image, or set OSCR_CA_FILE",
            )
        })
    }

    /// What a client needs to know.
    ///
    /// # Errors
    /// When the library was built without any version of TLS.
    pub(super) fn config(self: &Arc<Self>) -> Result<ClientConfig, Fault> {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions();
        let builder =
            builder.map_err(|error| Fault::denied(error.to_string(), "report this: it is a fault of OSCR"))?;
        let verifier = Arc::clone(self);
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn judge(&self) -> Result<&Judge, Error> {
        let made = self.judge.get_or_init(|| {
            let (mut roots, _) = self.own.roots();
            let system = rustls_native_certs::load_native_certs();
            let all = system.certs.iter().map(AsRef::as_ref).chain(self.own.der.iter().map(Vec::as_slice));
            let named = all.map(fingerprint).collect();
            roots.add_parsable_certificates(system.certs);
            Judge::of(roots, named, &self.provider)
        });
        made.as_ref().map_err(Clone::clone)
    }
}

impl Judge {
    fn of(roots: RootCertStore, named: HashSet<[u8; 32]>, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let chains = chains.build().map_err(|_| Error::General("there are no CA certificates".to_owned()))?;
        Ok(Self { chains, named })
    }
}

fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, certificate);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judge = self.judge()?;
        let why = match judge.chains.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(why) => why,
        };
        // Something that cannot be read is told as the library has it.
        let Some(facts) = x509::facts(certificate) else { return Err(why) };
        if judge.named.contains(&fingerprint(certificate)) {
            in_time(&facts, now)?;
            return is_for(&facts, certificate, name).map(|()| ServerCertVerified::assertion());
        }
        let authority = matches!(&why, Error::InvalidCertificate(CertificateError::Other(OtherError(other)))
            if other.to_string() == "CaUsedAsEndEntity");
        Err(match why {
            _ if !facts.extended => distrusted(Distrust::Version1),
            // Somebody of the same name may be trusted, who has another key.
            Error::InvalidCertificate(
                CertificateError::UnknownIssuer
                | CertificateError::BadSignature
                | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
            ) if facts.by_itself => distrusted(Distrust::BySelf),
            _ if authority && facts.by_itself => distrusted(Distrust::BySelf),
            _ if authority => distrusted(Distrust::Authority),
            why => why,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn distrusted(how: Distrust) -> Error {
    CertificateError::Other(OtherError(Arc::new(how))).into()
}

/// Whether a certificate is good at this time.
fn in_time(facts: &CertificateFacts<'_>, now: UnixTime) -> Result<(), Error> {
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    if now.as_secs() < facts.begins {
        return Err(CertificateError::NotValidYetContext { time: now, not_before: at(facts.begins) }.into());
    }
    if now.as_secs() > facts.ends {
        return Err(CertificateError::ExpiredContext { time: now, not_after: at(facts.ends) }.into());
    }
    Ok(())
}

/// Whether a certificate that is trusted itself is for this host. One without any names has its common name, as for OpenSSL.
fn is_for(facts: &CertificateFacts<'_>, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), Error> {
    if !facts.extended {
        return Err(distrusted(Distrust::Version1));
    }
    match verify_server_name(&ParsedCertificate::try_from(certificate)?, name) {
        Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }))
            if presented.is_empty()
                && facts.common_name.is_some_and(|own| own.eq_ignore_ascii_case(&name.to_str())) =>
        {
            Ok(())
        }
        told => told,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::PathBuf;

    use reqwest::header::HeaderMap;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use super::*;
    use crate::config::Network;
    use crate::provider::http::{Http, Obstacle};

    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/certificates").join(name)
    }

    /// The port of somebody who does this with one connection.
    fn server(answer: impl FnOnce(TcpStream) + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || answer(listener.accept().unwrap().0));
        port
    }

    /// A server with this certificate, whatever is wrong with it.
    fn with_certificate(name: &str) -> impl FnOnce(TcpStream) + Send + 'static {
        let chain = vec![CertificateDer::from_pem_file(file(name)).unwrap()];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key =
            provider.key_provider.load_private_key(PrivateKeyDer::from_pem_file(file("leaf.key")).unwrap()).unwrap();
        let shown = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)));
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = Arc::new(builder.with_no_client_auth().with_cert_resolver(shown));
        move |stream| {
            let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.flush();
        }
    }

    async fn reach(ca_file: Option<PathBuf>, host: &str, port: u16) -> Result<(), Obstacle> {
        let network = Network { ca_file, ..Network::default() };
        let url = format!("https://{host}:{port}");
        Http::new(network, &url, HeaderMap::new()).reach(&url).await.map(drop)
    }

    #[tokio::test]
    async fn a_server_is_trusted_as_openssl_trusts_it() {
        for (shown, named, host) in [
            ("good.pem", "ca.pem", "localhost"),
            ("good.pem", "ca.pem", "127.0.0.1"),
            ("of-old-ca.pem", "old-ca.pem", "localhost"),
            ("own.pem", "own.pem", "localhost"),
            ("own.pem", "own.pem", "127.0.0.1"),
            ("own.pem", "own-trusted.pem", "localhost"),
            ("own-without-names.pem", "own-without-names.pem", "127.0.0.1"),
            ("plain-own.pem", "plain-own.pem", "localhost"),
            // The server's own, without who signed it.
            ("good.pem", "good.pem", "localhost"),
        ] {
            let port = server(with_certificate(shown));
            assert_eq!(reach(Some(file(named)), host, port).await, Ok(()), "{shown}, {named}, {host}");
        }
    }

    /// What is refused, and words of why and of the cure.
    #[tokio::test]
    async fn each_refusal_has_its_cure() {
        for (shown, named, host, words) in [
            ("own.pem", "", "localhost", ["signed by itself", "very certificate in OSCR_CA_FILE"]),
            ("plain-own.pem", "", "localhost", ["signed by itself", "very certificate in OSCR_CA_FILE"]),
            // One of the same name and key is another certificate.
            ("own.pem", "own-early.pem", "localhost", ["signed by itself", "OSCR_CA_FILE"]),
            ("good.pem", "", "localhost", ["nobody whom this image trusts", "OSCR_CA_FILE"]),
            ("good.pem", "old-ca.pem", "localhost", ["nobody whom this image trusts", "OSCR_CA_FILE"]),
            ("expired.pem", "ca.pem", "localhost", ["expired on 2020-", "clock"]),
            ("expired.pem", "expired.pem", "localhost", ["expired on 2020-", "clock"]),
            ("own-expired.pem", "own-expired.pem", "localhost", ["expired on 2020-02-01", "clock"]),
            ("early.pem", "old-ca.pem", "localhost", ["not valid before 2125-01-01", "clock"]),
            ("own-early.pem", "own-early.pem", "localhost", ["not valid before 2125-01-01", "clock"]),
            ("other.pem", "ca.pem", "localhost", ["not valid for this host, but for ", "host in the address"]),
            ("other.pem", "other.pem", "localhost", ["not valid for this host, but for ", "host in the address"]),
            ("without-names.pem", "old-ca.pem", "localhost", ["names no host", "subjectAltName"]),
            ("own-without-names.pem", "own-without-names.pem", "localhost", ["names no host", "subjectAltName"]),
            (
                "of-clients.pem",
                "ca-of-clients.pem",
                "localhost",
                ["not one for servers (extendedKeyUsage)", "another certificate"],
            ),
            ("version-1.pem", "version-1.pem", "localhost", ["version 1", "subjectAltName"]),
            ("version-1.pem", "", "localhost", ["version 1", "subjectAltName"]),
        ] {
            let port = server(with_certificate(shown));
            let named = (!named.is_empty()).then(|| file(named));
            let Err(Obstacle::Trust { why, cure }) = reach(named.clone(), host, port).await else {
                panic!("{shown}, {named:?}");
            };
            assert!(why.contains(words[0]) && cure.contains(words[1]), "{shown}, {named:?}: {why}; {cure}");
            assert!(!why.contains("Context") && !why.contains("DnsName"), "{why}");
        }
    }

    #[tokio::test]
    async fn whoever_speaks_no_tls_or_another_one_is_told_from_a_certificate() {
        let says: [(&'static [u8], [&str; 2]); 7] = [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", ["speaks no TLS", "http://"]),
            (b"SSH-2.0-OpenSSH_9.2\r\n", ["speaks no TLS", "port"]),
            (b"\x15\x03\x01\x00\x02\x02\x46", ["no version of TLS is common", "1.2 or 1.3"]),
            (b"\x15\x03\x01\x00\x02\x02\x28", ["nothing is common", "1.2 or 1.3"]),
            (b"\x15\x03\x03\x00\x02\x02\x70", ["does not know the host", "spelling"]),
            (b"\x15\x03\x03\x00\x02\x02\x74", ["certificate from its clients", "none"]),
            (b"", ["closed before it was encrypted", "port"]),
        ];
        for (said, words) in says {
            let port = server(|mut stream| {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(said);
            });
            let found = reach(None, "localhost", port).await;
            let Err(Obstacle::Trust { why, cure }) = &found else { panic!("{words:?}: {found:?}") };
            assert!(why.contains(words[0]) && cure.contains(words[1]), "{why}; {cure}");
        }
    }

    #[tokio::test]
    async fn a_forge_without_tls_may_have_what_is_encrypted_beside_it() {
        let network = Network { ca_file: Some(file("own.pem")), ..Network::default() };
        let http = Http::new(network, "http://forge", HeaderMap::new());
        let url = format!("https://localhost:{}", server(with_certificate("own.pem")));
        assert!(http.reach(&url).await.is_ok());
        // And a way to it that is.
        let proxy = Some(format!("https://localhost:{}", server(with_certificate("own.pem"))));
        let network = Network { http_proxy: proxy, ca_file: Some(file("own.pem")), ..Network::default() };
        assert!(Http::new(network, "http://forge", HeaderMap::new()).reach("http://forge.invalid").await.is_ok());
    }

    #[test]
    fn a_file_without_a_certificate_is_not_passed_over() {
        for name in ["leaf.key", "README.md"] {
            assert!(matches!(Trust::of(Some(&file(name))), Err(Fault::Denied { .. })), "{name}");
        }
        assert!(matches!(Trust::of(Some(&file("missing.pem"))), Err(Fault::Unreachable(_))));
    }
}
