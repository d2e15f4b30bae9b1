SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  showExtensions: true,
  // The default sends the document's address to a validator on another host.
  validatorUrl: null,
});
