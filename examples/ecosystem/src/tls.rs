//! TLS by rustls: `rustls::StreamOwned` is all that it takes, because our streams are `Read` and `Write`.

use std::error::Error;
use std::io;
use std::sync::Arc;

use coro::net::TcpStream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// The server's end of a TLS connection.
pub type ServerStream = StreamOwned<ServerConnection, TcpStream>;
/// The client's end of one.
pub type ClientStream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate of the examples for `localhost`, signed by itself. Its key lies beside it for all to read, so it
/// proves nothing; `curl --cacert examples/ecosystem/certificate/certificate.pem` takes it.
pub const CERTIFICATE: &str = include_str!("../certificate/certificate.pem");
/// The key of [`CERTIFICATE`].
pub const KEY: &str = include_str!("../certificate/key.pem");

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(pem: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(invalid)
}

fn invalid(e: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, e)
}

/// For a server with this certificate (and those between it and a trusted one) and its key, as PEM.
///
/// # Errors
/// `InvalidInput` if one of them is none, or they do not belong together.
pub fn server_config(certificate: &str, key: &str) -> io::Result<Arc<ServerConfig>> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(invalid)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, key)
        .map_err(invalid)?;
    Ok(Arc::new(config))
}

/// For clients that trust these certificates (PEM) and no others.
///
/// # Errors
/// `InvalidInput` if they are none.
pub fn client_config(trusted: &str) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(trusted)? {
        roots.add(certificate).map_err(invalid)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(invalid)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The server's end over a connection that was accepted. The handshake comes with the first read.
///
/// # Errors
/// If the configuration does not allow it.
pub fn accept(config: &Arc<ServerConfig>, stream: TcpStream) -> Result<ServerStream, rustls::Error> {
    Ok(StreamOwned::new(ServerConnection::new(config.clone())?, stream))
}

/// The client's end over a connection to the host called `name`. The handshake comes with the first write.
///
/// # Errors
/// `InvalidInput` if `name` is none, or the configuration does not allow it.
pub fn connect(config: &Arc<ClientConfig>, name: &str, stream: TcpStream) -> io::Result<ClientStream> {
    let name = ServerName::try_from(name.to_owned()).map_err(invalid)?;
    Ok(StreamOwned::new(ClientConnection::new(config.clone(), name).map_err(invalid)?, stream))
}
