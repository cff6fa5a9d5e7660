#!/usr/bin/env bash
# docs/examples/replace-cta-aggregator.sh and cta_token.rb do what docs/replace-cta-aggregator.md says.
# needs: ruby
set -euo pipefail

. interop/case.sh

folder=$SCRATCH/cta
mkdir -p "$folder"
bash docs/examples/replace-cta-aggregator.sh "$folder" dev@example.com replaced-cta >/dev/null
pair=$(awk '/^api_key/ { key = $2 } /^api_secret/ { print key ":" $2 }' "$folder/key.txt")
answer=$(curl --silent --fail -X POST "$BASE/t/replaced-cta/v1/authentications" -H "AUTHORIZATION: $pair")
jwt=$(sed 's/.*"jwt":"\([^"]*\)".*/\1/' <<<"$answer")
check "the answer is the token and nothing else" test "$answer" = "{\"jwt\":\"$jwt\"}"
wrong=$(curl --silent --output /dev/null --write-out '%{http_code}' -X POST "$BASE/t/replaced-cta/v1/authentications" \
    -H "AUTHORIZATION: wrong-api-key:or-secret")
check "a wrong pair is 404" test "$wrong" = 404
said=$(ruby -I docs/examples -r cta_token -e '
    tokens = CtaToken.new(File.read(ARGV[0]), ARGV[1])
    jwt = ARGV[2]
    good = tokens.verify("Bearer #{jwt}")
    puts good["admin"] == false && good["scope"] == "events:write" && good["exp"] - good["iat"] == 86_400
    puts [jwt, "Bearer: #{jwt}", "bearer #{jwt}"].all? { |header| tokens.verify(header) == good }
    bad = ["Bearer abcd.efgh", "", nil, "Bearer #{jwt}x", jwt.sub(".", ".A"), "Bearer #{jwt.rpartition(".").first}."]
    puts bad.none? { |header| tokens.verify(header) }
    puts tokens.verify("Bearer #{jwt}", good["exp"]).nil?
    puts CtaToken.new(File.read(ARGV[0]), "https://elsewhere.example").verify("Bearer #{jwt}").nil?
' "$folder/claviger.pem" "$BASE/t/replaced-cta" "$jwt")
check "the Ruby verifier takes a good token, as leniently as before, and nothing else" test "$said" = "$(printf 'true\n%.0s' 1 2 3 4 5)"
