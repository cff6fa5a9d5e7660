// A door as cc-metric-store has it: one raw Ed25519 key in its configuration, `Authorization: Bearer`, and nothing but the
// signature and the times, which golang-jwt v4 checks without leeway.
//
//	metricstore CONFIG TOKEN...: a line for each token, `yes SUB` or `no WHY`
package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/golang-jwt/jwt/v4"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	var config struct {
		Key string `json:"jwt-public-key"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		panic(err)
	}
	raw, err := base64.StdEncoding.DecodeString(config.Key)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		panic("jwt-public-key is not 32 bytes in base64")
	}
	for _, token := range os.Args[2:] {
		claims := jwt.MapClaims{}
		_, err := jwt.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
			if t.Method != jwt.SigningMethodEdDSA {
				return nil, errors.New("only EdDSA")
			}
			return ed25519.PublicKey(raw), nil
		})
		if err != nil {
			fmt.Println("no", err)
			continue
		}
		fmt.Println("yes", claims["sub"])
	}
}
