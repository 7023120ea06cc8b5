//! The `cert` command: a certificate for this machine, and the authority that issues it.
//!
//! Two certificates, because not every program accepts one that has signed itself. The authority is kept, so that a
//! new certificate is trusted where the old one was.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use sha2::{Digest, Sha256};
use x509_cert::der::DecodePem;

use crate::cli::CertArgs;
use crate::new_file::write_new;
use crate::serve::own_addresses;

/// How long the authority is valid.
const CA_DAYS: u64 = 3650;
/// How long the certificate is valid: browsers refuse those that are valid for much longer.
const LEAF_DAYS: u64 = 397;

const CA_CERT: &str = "chatloop-ca.crt";
const CA_KEY: &str = "chatloop-ca.key";
const CERT: &str = "chatloop.crt";
const KEY: &str = "chatloop.key";

/// Why there is no certificate.
#[derive(Debug)]
pub(crate) enum CertError {
    /// This is neither a name nor an address.
    Host(String),
    /// A file cannot be read or written.
    File(PathBuf, io::Error),
    /// The authority that is there is not one of ours.
    Authority(PathBuf, String),
    /// What is left.
    Other(String),
}

impl CertError {
    /// The exit code, as `--help` lists it.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Host(_) => 2,
            Self::File(..) | Self::Authority(..) | Self::Other(_) => 1,
        }
    }
}

impl fmt::Display for CertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "--host {host}: neither a name nor an address"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Authority(path, error) => write!(
                f,
                "{}: {error}; remove {CA_CERT} and {CA_KEY} to make another authority",
                path.display()
            ),
            Self::Other(error) => write!(f, "cannot make a certificate: {error}"),
        }
    }
}

impl From<rcgen::Error> for CertError {
    fn from(error: rcgen::Error) -> Self {
        Self::Other(error.to_string())
    }
}

/// Writes the files, and prints how to use them.
pub(crate) fn make(args: &CertArgs) -> Result<ExitCode, CertError> {
    let names = if args.host.is_empty() {
        own_names()
    } else {
        args.host.clone()
    };
    let issuer = authority(&args.out, &names)?;
    let key = KeyPair::generate()?;
    let certificate = leaf(&names, &key, &issuer)?;
    // The key first: with the old certificate it is refused, and nothing is reloaded.
    write(&args.out.join(KEY), &key.serialize_pem(), 0o600)?;
    write(&args.out.join(CERT), &certificate.pem(), 0o644)?;
    let path = |name| args.out.join(name).display().to_string();
    let fingerprint = BASE64.encode(&Sha256::digest(key.subject_public_key_info()));
    anstream::println!(
        "{} is for {}\nfingerprint sha256:{fingerprint}\n\n\
         chatloop serve --listen tls+chat10://0.0.0.0:1234 --cert {} --key {}\n\
         chatloop join tls://{}:1234 --ca {}",
        path(CERT),
        names.join(", "),
        path(CERT),
        path(KEY),
        names.first().map_or("localhost", String::as_str),
        path(CA_CERT),
    );
    Ok(ExitCode::SUCCESS)
}

/// What this machine is called, by itself and by others.
fn own_names() -> Vec<String> {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy().into_owned();
    let loopback = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ];
    let others = own_addresses(true, true).unwrap_or_default();
    let addresses = loopback.into_iter().chain(others);
    let mut names = vec!["localhost".to_owned()];
    // The name may be one that no certificate can have.
    if host != "localhost" && CertificateParams::new([host.clone()]).is_ok() {
        names.push(host);
    }
    names.extend(addresses.map(|ip| ip.to_string()));
    names
}

/// The authority in this folder. If there is none yet, it is made.
fn authority(folder: &Path, names: &[String]) -> Result<Issuer<'static, KeyPair>, CertError> {
    let (certificate, key) = (folder.join(CA_CERT), folder.join(CA_KEY));
    let read = |path: &Path| match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertError::File(path.to_owned(), error)),
    };
    match (read(&certificate)?, read(&key)?) {
        (None, None) => {}
        (Some(of_certificate), Some(of_key)) => {
            let name = common_name(&of_certificate);
            let name = name.map_err(|error| CertError::Authority(certificate, error))?;
            let of_key = KeyPair::from_pem(&of_key)
                .map_err(|error| CertError::Authority(key, error.to_string()))?;
            return Ok(Issuer::new(authority_params(&name), of_key));
        }
        (None, Some(_)) => {
            let error = "its certificate is missing".to_owned();
            return Err(CertError::Authority(key, error));
        }
        (Some(_), None) => {
            let error = "its key is missing".to_owned();
            return Err(CertError::Authority(certificate, error));
        }
    }
    let name = names
        .iter()
        .find(|name| name.parse::<IpAddr>().is_err() && *name != "localhost");
    let name = format!(
        "chatloop CA of {}",
        name.map_or("this machine", String::as_str)
    );
    let params = authority_params(&name);
    let pair = KeyPair::generate()?;
    fs::create_dir_all(folder).map_err(|error| CertError::File(folder.to_owned(), error))?;
    write(&key, &pair.serialize_pem(), 0o600)?;
    write(&certificate, &params.self_signed(&pair)?.pem(), 0o644)?;
    Ok(Issuer::new(params, pair))
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    set_validity(&mut params, CA_DAYS);
    params
}

/// The common name of a certificate's subject.
fn common_name(pem: &str) -> Result<String, String> {
    let certificate = x509_cert::Certificate::from_pem(pem).map_err(|error| error.to_string())?;
    let name = certificate.tbs_certificate().subject().common_name();
    let name = name.map_err(|error| error.to_string())?;
    name.map(|name| name.value().into_owned())
        .ok_or_else(|| "it has no common name".to_owned())
}

fn leaf(
    names: &[String],
    key: &KeyPair,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<Certificate, CertError> {
    let mut params = CertificateParams::default();
    for name in names {
        let name = match name.parse() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '/') => {
                return Err(CertError::Host(name.clone()));
            }
            Err(_) => {
                let host = name.as_str().try_into();
                SanType::DnsName(host.map_err(|_| CertError::Host(name.clone()))?)
            }
        };
        params.subject_alt_names.push(name);
    }
    params.distinguished_name = rcgen::DistinguishedName::new();
    let first = names.first().map_or("localhost", String::as_str);
    params.distinguished_name.push(DnType::CommonName, first);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, LEAF_DAYS);
    Ok(params.signed_by(key, issuer)?)
}

/// From a day ago, for those whose clock is late.
fn set_validity(params: &mut CertificateParams, days: u64) {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days as u32).into();
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertError> {
    write_new(path, text, mode).map_err(|error| CertError::File(path.to_owned(), error))
}
