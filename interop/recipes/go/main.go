// Verifies tokens offline and follows what is revoked: recipe ISSUER AUDIENCE, one token a line.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// Without news for that long, nothing is accepted.
const longestSilence = 60 * time.Second

var stopping = []string{"sid", "key_id", "sub", "client_id", "jti", "tid"}

// Whoever acts for another stops with what lets them.
var acting = [][2]string{{"sub", "sub"}, {"client_id", "sub"}, {"sid", "sid"}, {"key_id", "key_id"}, {"key_id", "client_key_id"}}

type entry struct {
	until  *float64
	before *float64
}

// Verifier verifies the tokens of one issuer.
type Verifier struct {
	issuer, audience, feed string
	keys                   keyfunc.Keyfunc

	mutex   sync.RWMutex
	revoked map[[2]string]entry
	cursor  *float64
	asOf    time.Time
}

// New fetches the metadata and follows the revocations from then on. It returns when they are known.
func New(issuer, audience string) (*Verifier, error) {
	var metadata struct {
		Issuer      string `json:"issuer"`
		JWKS        string `json:"jwks_uri"`
		Revocations string `json:"revocations_endpoint"`
	}
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(issuer + "/.well-known/oauth-authorization-server")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&metadata); err != nil {
		return nil, err
	}
	if metadata.Issuer != issuer {
		return nil, errors.New("the metadata are another issuer's")
	}
	keys, err := keyfunc.NewDefault([]string{metadata.JWKS}) // keeps the keys, and asks again when one is not among them
	if err != nil {
		return nil, err
	}
	v := &Verifier{issuer: issuer, audience: audience, feed: metadata.Revocations, keys: keys, revoked: map[[2]string]entry{}}
	known := make(chan struct{})
	go v.follow(known)
	<-known
	return v, nil
}

func (v *Verifier) open(text, typ string, options ...jwt.ParserOption) (jwt.MapClaims, error) {
	options = append(options, jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer(v.issuer), jwt.WithLeeway(5*time.Second))
	token, err := jwt.Parse(text, v.keys.Keyfunc, options...)
	if err != nil {
		return nil, err
	}
	if token.Header["typ"] != typ {
		return nil, fmt.Errorf("not of the type %s", typ)
	}
	return token.Claims.(jwt.MapClaims), nil
}

// Verify returns the claims of a token that is good now.
func (v *Verifier) Verify(text string) (jwt.MapClaims, error) {
	claims, err := v.open(text, "at+jwt", jwt.WithAudience(v.audience), jwt.WithExpirationRequired())
	if err != nil {
		return nil, err
	}
	issued, ok := claims["iat"].(float64)
	if !ok || claims["jti"] == nil || claims["sub"] == nil {
		return nil, errors.New("a claim is missing")
	}
	v.mutex.RLock()
	defer v.mutex.RUnlock()
	var names [][2]string
	for _, name := range stopping {
		value, _ := claims[name].(string)
		names = append(names, [2]string{name, value})
	}
	act, _ := claims["act"].(map[string]any)
	for _, one := range acting {
		value, _ := act[one[1]].(string)
		names = append(names, [2]string{one[0], value})
	}
	for _, name := range names {
		if e, ok := v.revoked[name]; ok && (e.before == nil || issued <= *e.before) {
			return nil, errors.New("revoked")
		}
	}
	if time.Since(v.asOf) > longestSilence {
		return nil, errors.New("no news of revocations")
	}
	return claims, nil
}

func (v *Verifier) follow(known chan struct{}) {
	for first := true; ; {
		more, err := v.read()
		if err != nil { // whatever it is: try again; silence is noticed above
			log.Printf("revocations: %v", err)
			time.Sleep(time.Second)
		} else if first && !more {
			first = false
			close(known)
		}
	}
}

func (v *Verifier) read() (bool, error) {
	place := v.feed
	if v.cursor != nil {
		place += fmt.Sprintf("?since=%.0f&wait=20", *v.cursor)
	}
	client := http.Client{Timeout: 30 * time.Second}
	answer, err := client.Get(place)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the feed answered %s", answer.Status)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 8<<20))
	if err != nil {
		return false, err
	}
	batch, err := v.open(string(text), "revocations+jwt")
	if err != nil {
		return false, err
	}
	v.mutex.Lock()
	defer v.mutex.Unlock()
	if prev, ok := batch["prev"].(float64); !ok {
		v.revoked = map[[2]string]entry{}
	} else if v.cursor == nil || prev != *v.cursor {
		v.cursor = nil
		return false, errors.New("something was missed: from the beginning")
	}
	entries, _ := batch["entries"].([]any)
	for _, one := range entries {
		fields, _ := one.([]any)
		if len(fields) < 3 {
			return false, errors.New("an entry that cannot be read")
		}
		name, _ := fields[0].(string)
		value, _ := fields[1].(string)
		var e entry
		if until, ok := fields[2].(float64); ok {
			e.until = &until
		}
		if len(fields) > 3 {
			before, _ := fields[3].(float64)
			e.before = &before
		}
		v.revoked[[2]string{name, value}] = e
	}
	now := time.Now()
	for key, e := range v.revoked {
		if e.until != nil && *e.until < float64(now.Unix()) {
			delete(v.revoked, key)
		}
	}
	cursor, _ := batch["cursor"].(float64)
	v.cursor = &cursor
	more, _ := batch["more"].(bool)
	if made, ok := batch["iat"].(float64); ok && !more {
		asOf := time.Unix(int64(made), 0)
		if asOf.After(now) {
			asOf = now
		}
		if asOf.After(v.asOf) {
			v.asOf = asOf
		}
	}
	return more, nil
}

func main() {
	verifier, err := New(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		claims, err := verifier.Verify(strings.TrimSpace(lines.Text()))
		if err != nil {
			fmt.Println("refused:", strings.ReplaceAll(err.Error(), "\n", "; "))
			continue
		}
		scope, _ := claims["scope"].(string)
		fmt.Println("good", claims["sub"], scope)
	}
}
