//! Names in a certificate: its subject alternative names. The subject is not used.

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::caller::{Certificate, Names, UnusableNames};
use crate::clock::Timestamp;

/// Reads names and expiry of a certificate, without verifying it.
pub(super) fn read(der: &[u8]) -> Certificate {
    let Ok(([], certificate)) = parse_x509_certificate(der) else {
        return Certificate { names: Err(UnusableNames::Malformed), expires: Timestamp::from_secs(0) };
    };
    let expires = Timestamp::from_secs(certificate.validity().not_after.timestamp());
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => names(&extension.value.general_names),
        Ok(None) => Err(UnusableNames::None),
        Err(_) => Err(UnusableNames::Malformed),
    };
    Certificate { names, expires }
}

fn names(all: &[GeneralName<'_>]) -> Result<Names, UnusableNames> {
    let (mut uris, mut dns) = (vec![], vec![]);
    for name in all {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::DNSName(name) => dns.push(*name),
            GeneralName::Invalid(..) => return Err(UnusableNames::Malformed),
            _ => {}
        }
    }
    Names::new(uris, dns)
}
