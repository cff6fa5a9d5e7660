# Verifies the tokens of a tenant of the preset `cta` in a Rails application: needs Ruby's own OpenSSL (3 or newer) and no gem.
# Where `knock` had `authenticate_user`:
#
#   TOKENS = CtaToken.new(File.read("config/claviger.pem"), "https://id.example.com/t/cta")
#   claims = TOKENS.verify(request.headers["Authorization"]) or head :unauthorized
#   user = User.find(claims["sub"])      # and claims["admin"] for the policies
require "base64"
require "json"
require "openssl"

class CtaToken
  def initialize(pem, issuer)
    @key = OpenSSL::PKey.read(pem)
    @issuer = issuer
  end

  # The claims; nil for whatever is no good token. Takes `Bearer TOKEN`, `Bearer: TOKEN` and the token alone.
  def verify(header, now = Time.now.to_i)
    token = header.to_s.strip.sub(/\Abearer:?\s+/i, "")
    head, payload, signature = parts = token.split(".", -1)
    return nil unless parts.length == 3
    return nil unless JSON.parse(Base64.urlsafe_decode64(head))["alg"] == "EdDSA"
    return nil unless @key.verify(nil, Base64.urlsafe_decode64(signature), "#{head}.#{payload}")
    claims = JSON.parse(Base64.urlsafe_decode64(payload))
    claims if claims["iss"] == @issuer && claims["exp"].is_a?(Integer) && now < claims["exp"] && claims["sub"].is_a?(String)
  rescue ArgumentError, JSON::ParserError, OpenSSL::PKey::PKeyError, TypeError, NoMethodError
    nil
  end
end
