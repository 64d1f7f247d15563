package mq9

// Version is the version of this package.
const Version = "1.0.0"
