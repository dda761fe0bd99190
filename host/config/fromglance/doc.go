// Package fromglance makes a configuration of this service from the one of a
// Glance whose image cache it takes over.
package fromglance
