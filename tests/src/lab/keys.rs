//! The keys and certificates of a cluster, as files and as values.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer},
};

/// The names that clients know every API server by.
const SERVER_NAMES: [&str; 4] = ["kubernetes", "kubernetes.default.svc", "127.0.0.1", "::1"];

/// The authority of a cluster, its administrator, and the key that signs tokens.
pub struct Keys {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// TLS as the administrator speaks it.
    pub client: Arc<ClientConfig>,
}

/// The files of a certificate.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Keys {
    /// Makes them in `directory`, which only root reads but for the authority's certificate.
    pub fn new(directory: &Path) -> Result<Self> {
        fs::create_dir(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711))?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "authority of the lab");
        let key = KeyPair::generate()?;
        let root = authority.self_signed(&key)?;
        fs::write(directory.join("ca.crt"), root.pem())?;

        let tokens = KeyPair::generate()?;
        private(&directory.join("tokens.key"), &tokens.serialize_pem())?;
        fs::write(directory.join("tokens.pub"), tokens.public_key_pem())?;

        let issuer = Issuer::new(authority, key);
        // This group may do everything, by a rule that every API server makes.
        let administrator = person("administrator", "system:masters")?;
        let (certificate, key) = sign(directory, "administrator", &administrator, &issuer)?;
        let client = client(root.der(), certificate, &key)?;
        Ok(Self {
            directory: directory.to_owned(),
            issuer,
            client: Arc::new(client),
        })
    }

    /// The file with the certificate of the authority.
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// The files of the key that signs tokens: the key itself, and its public half.
    pub fn tokens(&self) -> [PathBuf; 2] {
        ["tokens.key", "tokens.pub"].map(|name| self.directory.join(name))
    }

    /// The administrator's files.
    pub fn administrator(&self) -> Pair {
        self.pair("administrator")
    }

    /// Makes the certificate of an API server at `addresses` of its own.
    pub fn server(&self, name: &str, addresses: &[&str]) -> Result<Pair> {
        let names = SERVER_NAMES.iter().chain(addresses);
        let names: Vec<String> = names.map(ToString::to_string).collect();
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, name);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        sign(&self.directory, name, &server, &self.issuer)?;
        Ok(self.pair(name))
    }

    fn pair(&self, name: &str) -> Pair {
        Pair {
            certificate: self.directory.join(format!("{name}.crt")),
            key: self.directory.join(format!("{name}.key")),
        }
    }
}

/// A client with this name, in this group.
fn person(name: &str, group: &str) -> Result<CertificateParams> {
    let mut person = CertificateParams::new(Vec::new())?;
    let names = &mut person.distinguished_name;
    names.push(DnType::CommonName, name);
    names.push(DnType::OrganizationName, group);
    person.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(person)
}

/// Makes a key and its certificate, and writes the files of both.
fn sign(
    directory: &Path,
    name: &str,
    subject: &CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<(CertificateDer<'static>, KeyPair)> {
    let key = KeyPair::generate()?;
    let certificate = subject.signed_by(&key, issuer)?;
    let file = directory.join(format!("{name}.crt"));
    fs::write(file, certificate.pem())?;
    private(&directory.join(format!("{name}.key")), &key.serialize_pem())?;
    Ok((certificate.der().clone(), key))
}

/// Writes a file that only root reads.
fn private(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    Ok(fs::set_permissions(
        file,
        fs::Permissions::from_mode(0o600),
    )?)
}

fn client(
    root: &CertificateDer<'static>,
    certificate: CertificateDer<'static>,
    key: &KeyPair,
) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone())?;
    let key = PrivateKeyDer::try_from(key.serialize_der())
        .ok()
        .context("the key is not PKCS #8")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?)
}
