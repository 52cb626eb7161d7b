"""A url's recording from a server whose certificate is signed by whom the test says."""

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from actors.guard import Guard
from storage.settings import StorageSettings
from tests.actors.fetching import Fetching
from tests.origin import Origin, Served


class Authority:
    """Signs certificates for a test; its own is written where SSL_CERT_FILE may point to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of a test")])
        self.path = folder / "authority.pem"
        certificate = self._signed(self._key, self._name, x509.BasicConstraints(ca=True, path_length=None))
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, host: str) -> ssl.SSLContext:
        """For a server of this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = x509.SubjectAlternativeName([x509.DNSName(host)])
        certificate = self._signed(key, x509.Name([]), alternative)
        path = self._folder / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _signed(
        self, key: ec.EllipticCurvePrivateKey, name: x509.Name, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(self._key, hashes.SHA256())
        )


def test_a_certificate_must_be_valid_and_for_the_name(
    fresh_settings: StorageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    origin = Origin(authority.server("talks.example"))
    origin.served["/talk"] = Served(body=b"R" * 9)
    house = Fetching(fresh_settings, Guard("127.0.0.1/32", resolve=lambda host, port: ["127.0.0.1"]))

    unknown = house.fetch(f"https://talks.example:{origin.port}/talk")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    trusted = house.fetch(f"https://talks.example:{origin.port}/talk")
    other = house.fetch(f"https://others.example:{origin.port}/talk")
    origin.close()

    assert (unknown.error_code, unknown.error) == (
        "url_untrusted",
        "the certificate of talks.example is not valid: unable to get local issuer certificate",
    )
    assert trusted.source.size == 9
    assert other.error_code == "url_untrusted"
    assert "others.example" in (other.error or "")
    assert [asked.headers["host"] for asked in origin.asked] == [f"talks.example:{origin.port}"]
