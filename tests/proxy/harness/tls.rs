//! Certificates that exist for one test, and both ends of TLS by rustls' usual, buffered code.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Proxy, Wire, soon};

/// Who vouches for the certificates of a test, and the folder where they are.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: CertificateDer<'static>,
    folder: TempDir,
    file: PathBuf,
}

/// A certificate and its key, as files and as they are.
pub(crate) struct Files {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    private: Vec<u8>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names are fine");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("authority {} of a test", COUNT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("ca.pem");
        fs::write(&file, cert.pem()).expect("the file is ours");
        Self { cert: cert.der().clone(), issuer: Issuer::new(params, key), folder, file }
    }

    /// Its own certificate.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// A certificate for these names, addresses among them.
    pub(crate) fn vouch_for(&self, names: &[&str]) -> Files {
        self.vouch_until(names, 4000)
    }

    /// The same, good until the beginning of a year.
    pub(crate) fn vouch_until(&self, names: &[&str], year: i32) -> Files {
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let file_name = names.first().map_or_else(|| "nobody".to_owned(), |name| name.replace('*', "any"));
        let mut params = CertificateParams::new(names).expect("the names are names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let path = |end: &str| self.folder.path().join(format!("{file_name}-{year}.{end}"));
        let files = Files {
            cert: path("pem"),
            key: path("key"),
            chain: vec![cert.der().clone(), self.cert.clone()],
            private: key.serialize_der(),
        };
        fs::write(&files.cert, cert.pem()).expect("the file is ours");
        fs::write(&files.key, key.serialize_pem()).expect("the file is ours");
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).expect("the file is ours");
        files
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).expect("it is a certificate");
        roots
    }

    /// A client that trusts it.
    pub(crate) fn client(&self) -> Shaking {
        Shaking::trusting(self.roots())
    }

    /// What a server of a test shakes hands with, by certificates of this authority.
    pub(crate) fn server(&self, files: &Files) -> TlsAcceptor {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("versions are fine").with_no_client_auth();
        acceptor(config.with_single_cert(files.chain.clone(), files.private()))
    }

    /// The same, and clients need a certificate of this authority.
    pub(crate) fn strict_server(&self, files: &Files) -> TlsAcceptor {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), provider());
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("versions are fine").with_client_cert_verifier(verifier.build().expect("roots"));
        acceptor(config.with_single_cert(files.chain.clone(), files.private()))
    }
}

fn acceptor(config: Result<ServerConfig, rustls::Error>) -> TlsAcceptor {
    let mut config = config.expect("certificate and key belong together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

impl Files {
    /// As an entry of `certificates`.
    pub(crate) fn entry(&self) -> String {
        format!("{{ cert: {}, key: {} }}", self.cert.display(), self.key.display())
    }

    fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.private.clone().into())
    }
}

/// The `tls` of a listener that shows these certificates.
pub(crate) fn listening(files: &[&Files]) -> String {
    let entries: Vec<_> = files.iter().map(|files| files.entry()).collect();
    format!("tls: {{ certificates: [{}] }}", entries.join(", "))
}

/// A client of TLS.
#[derive(Clone)]
pub(crate) struct Shaking {
    config: ClientConfig,
    /// Shared by connections that come again.
    kept: Option<Arc<ClientConfig>>,
}

impl Shaking {
    fn trusting(roots: RootCertStore) -> Self {
        let builder = Self::builder(rustls::DEFAULT_VERSIONS);
        Self { config: builder.with_root_certificates(roots).with_no_client_auth(), kept: None }
    }

    fn builder(
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        builder.expect("versions are fine")
    }

    /// Speaks only this version.
    pub(crate) fn only(mut self, authority: &Authority, version: &'static SupportedProtocolVersion) -> Self {
        let config = Self::builder(&[version]).with_root_certificates(authority.roots()).with_no_client_auth();
        self.config = config;
        self
    }

    /// Remembers whom it has met.
    pub(crate) fn kept(mut self) -> Self {
        self.kept = Some(Arc::new(self.config.clone()));
        self
    }

    /// Would send requests ahead of the handshake if it may. To be called before [`Shaking::kept`].
    pub(crate) fn hasty(mut self) -> Self {
        self.config.enable_early_data = true;
        self
    }

    /// Whether it may, when it comes to `name` again.
    pub(crate) fn may_hurry(&self, name: &str) -> bool {
        let config = self.kept.clone().expect("it remembers whom it has met");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(config, name).expect("the configuration is fine");
        connection.early_data().is_some()
    }

    /// Shows a certificate if asked for one.
    pub(crate) fn showing(mut self, authority: &Authority, files: &Files) -> Self {
        let builder = Self::builder(rustls::DEFAULT_VERSIONS).with_root_certificates(authority.roots());
        let config = builder.with_client_auth_cert(files.chain.clone(), files.private());
        self.config = config.expect("certificate and key belong together");
        self
    }

    /// Speaks this inside, and nothing else.
    pub(crate) fn speaking(mut self, protocol: &[u8]) -> Self {
        self.config.alpn_protocols = vec![protocol.to_vec()];
        self
    }

    /// A connection with the proxy, as a client that wants `name`.
    pub(crate) async fn connect(&self, proxy: &Proxy, name: &str) -> Wire {
        let connected = self.try_connect(proxy.address(), name).await;
        connected.unwrap_or_else(|error| panic!("no TLS for {name}: {error}"))
    }

    /// The same, when it may fail.
    pub(crate) async fn try_connect(&self, address: SocketAddr, name: &str) -> std::io::Result<Wire> {
        let tcp = soon("a connection", TcpStream::connect(address)).await?;
        self.over(tcp, name).await
    }

    /// The same over a connection that is there already.
    pub(crate) async fn over(&self, tcp: TcpStream, name: &str) -> std::io::Result<Wire> {
        self.stream_over(tcp, name).await.map(|stream| Wire::encrypted(stream, "client"))
    }

    /// A connection with the proxy as bytes for somebody else.
    pub(crate) async fn stream(&self, proxy: &Proxy, name: &str) -> TlsStream<TcpStream> {
        let tcp = soon("a connection", TcpStream::connect(proxy.address())).await.expect("the proxy listens");
        self.stream_over(tcp, name).await.unwrap_or_else(|error| panic!("no TLS for {name}: {error}"))
    }

    async fn stream_over(&self, tcp: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let fresh = || {
            let mut config = self.config.clone();
            config.resumption = Resumption::disabled();
            Arc::new(config)
        };
        let connector = TlsConnector::from(self.kept.clone().unwrap_or_else(fresh));
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        soon("a handshake", connector.connect(name, tcp)).await
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
