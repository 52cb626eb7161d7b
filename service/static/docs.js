// A key that is typed in here stays in the page: it is gone when the page is left.
SwaggerUIBundle({url: "openapi.json", dom_id: "#docs", deepLinking: true, persistAuthorization: false, validatorUrl: null});
