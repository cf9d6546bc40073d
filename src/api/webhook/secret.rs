//! The secret of a webhook, and who proves to know it.

use axum::http::HeaderMap;
use ring::hmac;

/// The shortest secret, in bytes.
const LEAST: usize = 16;

/// What the host and we know.
pub struct Secret {
    key: hmac::Key,
    plain: Vec<u8>,
}

/// What the headers of a request prove, before anything of its body is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// That whoever sent them knows the secret.
    Whole,
    /// Nothing yet: this is to be the body's signature.
    Signature(Vec<u8>),
}

impl Secret {
    /// The secret in the text of a file; one line end after it is no part of it.
    ///
    /// # Errors
    /// When it is too short to be one.
    pub fn new(text: &[u8]) -> Result<Secret, String> {
        let plain = text.strip_suffix(b"\n").unwrap_or(text);
        if plain.len() < LEAST {
            return Err(format!(
                "the secret must have at least {LEAST} bytes; `openssl rand -hex 32` makes a \
                 good one"
            ));
        }
        Ok(Secret {
            key: hmac::Key::new(hmac::HMAC_SHA256, plain),
            plain: plain.to_vec(),
        })
    }

    /// What is proven by the way in which one of the hosts shows that it knows the secret; `None`
    /// when there is none, or it is wrong already.
    pub(super) fn proof(&self, headers: &HeaderMap) -> Option<Proof> {
        let header = |name: &str| headers.get(name).map(|value| value.as_bytes());
        if let Some(signature) = header("x-hub-signature-256") {
            return signature.strip_prefix(b"sha256=").and_then(signature_of);
        }
        let signature = header("x-gitea-signature").or_else(|| header("x-forgejo-signature"));
        if let Some(signature) = signature {
            return signature_of(signature);
        }
        let token = header("x-gitlab-token")?;
        self.same(&self.plain, token).then_some(Proof::Whole)
    }

    /// What signs a body.
    pub(super) fn signing(&self) -> hmac::Context {
        hmac::Context::with_key(&self.key)
    }

    /// Whether two values are the same. It takes as long for every wrong one: what is compared
    /// are their hashes under one key, so that no byte of them can be guessed.
    pub(super) fn same(&self, known: &[u8], sent: &[u8]) -> bool {
        let sent = hmac::sign(&self.key, sent);
        hmac::verify(&self.key, known, sent.as_ref()).is_ok()
    }
}

fn signature_of(hex: &[u8]) -> Option<Proof> {
    if hex.len() != 2 * ring::digest::SHA256_OUTPUT_LEN {
        return None;
    }
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16).ok()
    };
    let bytes: Option<Vec<u8>> = hex.chunks(2).map(byte).collect();
    bytes.map(Proof::Signature)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef\n";
    const BODY: &[u8] = b"{\"ref\":\"refs/heads/main\"}";

    /// Whether it is known by its header, and by its body where that counts.
    fn sent(name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let secret = Secret::new(SECRET).unwrap();
        match secret.proof(&headers) {
            None => false,
            Some(Proof::Whole) => true,
            Some(Proof::Signature(sent)) => {
                let mut signing = secret.signing();
                signing.update(BODY);
                secret.same(signing.sign().as_ref(), &sent)
            }
        }
    }

    /// Worked out by `openssl dgst -sha256 -hmac`.
    const SIGNATURE: &str = "5715eeea6c3a336d03de9b3b592479dbc3d1a82717f482b431bbc4d47b10e641";

    #[test]
    fn each_hosts_way_is_known() {
        assert!(sent("x-hub-signature-256", &format!("sha256={SIGNATURE}")));
        assert!(sent("x-gitea-signature", SIGNATURE));
        assert!(sent("x-forgejo-signature", SIGNATURE));
        assert!(sent("x-gitlab-token", "0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn nothing_else_is() {
        for wrong in [
            "",
            "sha256=",
            "sha256=00",
            "sha1=00",
            SIGNATURE,
            "sha256=zz",
            "sha256=0",
        ] {
            assert!(!sent("x-hub-signature-256", wrong), "{wrong}");
        }
        let flipped = format!("f{}", &SIGNATURE[1..]);
        assert_ne!(flipped, SIGNATURE);
        assert!(!sent("x-gitea-signature", &flipped));
        for wrong in ["", "0123456789abcdef0123456789abcdeg", "0123456789abcdef"] {
            assert!(!sent("x-gitlab-token", wrong), "{wrong}");
        }
        assert!(!sent("authorization", "0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn what_proves_nothing_is_known_by_its_headers_alone() {
        let secret = Secret::new(SECRET).unwrap();
        let proof = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            secret.proof(&headers)
        };
        assert_eq!(proof("x-nothing", SIGNATURE), None);
        assert_eq!(proof("x-gitea-signature", "abcd"), None);
        assert_eq!(proof("x-gitlab-token", "wrong"), None);
        let right = proof("x-gitlab-token", "0123456789abcdef0123456789abcdef");
        assert_eq!(right, Some(Proof::Whole));
    }

    #[test]
    fn a_secret_is_long_enough() {
        assert!(Secret::new(b"short\n").is_err());
        assert!(Secret::new(b"").is_err());
    }
}
