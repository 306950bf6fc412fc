"""Trien's server: keys stay in a PKCS#11 token, every signature is authorized and recorded first."""
