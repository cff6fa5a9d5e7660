module claviger/metricstore

go 1.25.0

require github.com/golang-jwt/jwt/v4 v4.5.2
